"""The checks of a supernet family by name, and `check_supernet`, which runs them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hwsearch.errors import ContractError
from hwsearch.supernets.interface import Network
from hwsearch.supernets.supernet import Supernet
from hwsearch.testing import (
    behaviour_checks,
    block_checks,
    declaration_checks,
    onnx_checks,
    subnet_checks,
)
from hwsearch.testing.check_report import first_problems, owed_by, report, run_checks
from hwsearch.testing.subject import Examined

# Nothing else can be run where one of these fails.
FIRST = (
    declaration_checks.declares_what_it_owes,
    declaration_checks.input_spec_is_plain,
    subnet_checks.subnets_build,
    subnet_checks.subnets_answer_as_promised,
)
THEN = (
    declaration_checks.space_reads_only_its_own,
    subnet_checks.equal_architectures_are_equal_networks,
    subnet_checks.memory_is_never_shared,
    subnet_checks.global_seed_is_untouched,
    behaviour_checks.every_choice_matters,
    behaviour_checks.every_input_matters,
    behaviour_checks.samples_do_not_see_their_batch,
    behaviour_checks.statistics_are_recalibrated,
    block_checks.blocks_chain_to_the_network,
    block_checks.blocks_own_every_parameter,
    block_checks.block_inputs_are_honest,
    block_checks.equal_specs_cost_the_same,
    block_checks.equal_specs_are_equal_modules,
    block_checks.costs_are_counted_ones,
    onnx_checks.onnx_agrees,
    onnx_checks.onnx_counts_the_same,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check; call it with a supernet, a family's network, or `Examined` to share work.

    ``problems`` yields one text per problem.
    """

    problems: Callable[[Examined], Iterator[str]]

    @property
    def name(self) -> str:
        """Return the name in `CHECKS`."""
        return self.problems.__name__

    @property
    def owed(self) -> str:
        """Return the requirement."""
        return owed_by(self.problems)

    def __call__(self, net: Supernet | Network | Examined) -> None:
        """Run the check.

        Raises:
            ContractError: It failed.
            unittest.SkipTest: It does not apply to this supernet; the text says why.
        """
        subject = net if isinstance(net, Examined) else Examined(net)
        if found := first_problems(self.problems, subject):
            owed, failed = {self.name: self.owed}, {self.name: found}
            raise ContractError(report("supernet", subject.name, owed, failed), failed)


CHECKS = {problems.__name__: Check(problems) for problems in (*FIRST, *THEN)}


def check_supernet(net: Supernet | Network | Examined) -> dict[str, str]:
    """Run all contract checks on a supernet.

    The smallest, the largest and some random architectures of the whole space are examined. Use a
    family's miniature; a full-size network takes much longer.

    Args:
        net: A loaded supernet, or the network that a family's ``load`` or ``tiny`` returns.

    Returns:
        Name of each check that does not apply -> the reason.

    Raises:
        ContractError: Checks failed; the text names each with its findings and what to do.
    """
    subject = net if isinstance(net, Examined) else Examined(net)
    return run_checks("supernet", subject.name, FIRST, THEN, subject)
