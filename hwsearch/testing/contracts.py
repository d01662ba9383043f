"""The checks of supernets and of tactics by name, and the functions that run them."""

import unittest
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from hwsearch.errors import ContractError
from hwsearch.optimizer.tactics import Tactic
from hwsearch.supernets.interface import Network, OnnxNetwork
from hwsearch.supernets.supernet import Supernet
from hwsearch.testing import (
    block_checks,
    declaration_checks,
    onnx_checks,
    subnet_checks,
    tactic_checks,
    written_checks,
)
from hwsearch.testing.subject import Examined

MAX_PROBLEMS = 3
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
    subnet_checks.every_choice_matters,
    subnet_checks.every_input_matters,
    subnet_checks.samples_do_not_see_their_batch,
    subnet_checks.statistics_are_recalibrated,
    block_checks.blocks_chain_to_the_network,
    block_checks.blocks_own_every_parameter,
    block_checks.block_inputs_are_honest,
    block_checks.equal_specs_cost_the_same,
    block_checks.equal_specs_are_equal_modules,
    block_checks.costs_are_counted_ones,
    onnx_checks.onnx_agrees,
    onnx_checks.onnx_counts_the_same,
)
# Of a network that writes the ONNX models of its subnets itself.
FIRST_OF_WRITERS = (
    declaration_checks.declares_what_it_owes,
    declaration_checks.input_spec_is_plain,
    written_checks.models_are_written,
    subnet_checks.subnets_answer_as_promised,
)
THEN_OF_WRITERS = (
    declaration_checks.space_reads_only_its_own,
    written_checks.equal_architectures_are_equal_files,
    written_checks.costs_are_those_of_the_model,
    written_checks.slices_are_the_given_model,
    written_checks.largest_is_the_given_model,
    subnet_checks.every_choice_matters,
    subnet_checks.every_input_matters,
    subnet_checks.samples_do_not_see_their_batch,
)
FIRST_OF_TACTICS = (tactic_checks.is_a_tactic, tactic_checks.proposes_for_every_history)
THEN_OF_TACTICS = (
    tactic_checks.proposes_nothing_twice,
    tactic_checks.leaves_the_history_as_it_is,
    tactic_checks.decides_from_the_history_alone,
    tactic_checks.global_randomness_is_untouched,
)
TACTIC_CHECKS = {check.__name__: check for check in (*FIRST_OF_TACTICS, *THEN_OF_TACTICS)}
Subject = TypeVar("Subject")


def owed_by(problems: Callable[[Subject], Iterator[str]]) -> str:
    """Return the first line of a check's docstring: its requirement."""
    return (problems.__doc__ or "").strip().splitlines()[0]


def run_checks(
    what: str,
    name: str,
    first: Sequence[Callable[[Subject], Iterator[str]]],
    then: Sequence[Callable[[Subject], Iterator[str]]],
    subject: Subject,
) -> dict[str, str]:
    """Run checks of a ``what`` (such as ``supernet``); the others need those in ``first`` to pass.

    Returns:
        Name of each check that does not apply -> the reason.

    Raises:
        ContractError: Checks failed; the text names each with its first findings.
    """
    failed: dict[str, list[str]] = {}
    skipped: dict[str, str] = {}
    lines = []
    for problems in (*first, *then):
        found: list[str] = []
        try:
            found.extend(islice(problems(subject), MAX_PROBLEMS))
        except unittest.SkipTest as reason:
            skipped[problems.__name__] = str(reason)
        except ContractError as error:
            found.append(str(error))
        except Exception as error:  # noqa: BLE001 - what is checked is a stranger's code
            found.append(f"{type(error).__name__}: {error}")
        if found:
            failed[problems.__name__] = found
            lines.append(f"{problems.__name__}: {owed_by(problems)}")
            lines += [f"  - {problem}" for problem in found]
        if found and problems in first:
            lines.append("The checks after it were not run: they need this one to pass.")
            break
    if failed:
        n = len(first) + len(then)
        count = f"{len(failed)} of {n} checks" if len(failed) > 1 else "a check"
        head = f"{what} {name!r} does not do what a {what} owes; {count} failed:"
        raise ContractError("\n".join([head, *lines]), failed)
    return skipped


@dataclass(frozen=True, slots=True)
class Check:
    """One check; call it with a supernet, a family's network, or `Examined` to share work.

    ``problems`` yields one text per problem.
    """

    problems: Callable[[Examined], Iterator[str]]

    @property
    def name(self) -> str:
        """Return its name."""
        return self.problems.__name__

    @property
    def owed(self) -> str:
        """Return the requirement."""
        return owed_by(self.problems)

    def __call__(self, net: Supernet | Network | OnnxNetwork | Examined) -> None:
        """Run the check.

        Raises:
            ContractError: It failed.
            unittest.SkipTest: It does not apply to this supernet; the text says why.
        """
        subject = net if isinstance(net, Examined) else Examined(net)
        skipped = run_checks("supernet", subject.name, (), (self.problems,), subject)
        if skipped:
            raise unittest.SkipTest(skipped[self.name])


CHECKS = {problems.__name__: Check(problems) for problems in (*FIRST, *THEN)}
ONNX_CHECKS = {each.__name__: Check(each) for each in (*FIRST_OF_WRITERS, *THEN_OF_WRITERS)}


def check_supernet(net: Supernet | Network | OnnxNetwork | Examined) -> dict[str, str]:
    """Run all contract checks on a supernet, `CHECKS` or `ONNX_CHECKS`.

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
    if subject.writes_onnx:
        return run_checks("supernet", subject.name, FIRST_OF_WRITERS, THEN_OF_WRITERS, subject)
    return run_checks("supernet", subject.name, FIRST, THEN, subject)


def check_tactic(tactic: Tactic, name: str = "") -> None:
    """Run all contract checks on a tactic, in about a dozen states of a small search.

    Args:
        tactic: The tactic registered, or to be registered, in the group ``hwsearch.tactics``.
        name: Its name in messages; by default that of its function.

    Raises:
        ContractError: Checks failed; the text names each with its findings and what to do.
    """
    name = name or getattr(getattr(tactic, "propose", tactic), "__name__", type(tactic).__name__)
    run_checks("tactic", name, FIRST_OF_TACTICS, THEN_OF_TACTICS, tactic)
