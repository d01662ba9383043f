"""Checks of the behaviour of subnets: choices, inputs, batch statistics."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.models.agreement import disagreement
from hwsearch.space import Choice
from hwsearch.supernets.module_costs import module_costs
from hwsearch.testing.subject import Case, Examined, during

SAME = 1e-6
BATCH_TOLERANCE = 1e-4


def every_choice_matters(subject: Examined) -> Iterator[str]:
    """Changing one active choice changes the network: its outputs, MACs or parameters."""
    for case, columns in _choices_to_try(subject):
        for column in columns:
            choice = subject.space.choices[column]
            others = _others(subject, case, column)
            if not any(_differs(subject, case, other) for other in others):
                own, rest = case.arch[choice.name], _listed(choice, case)
                yield (
                    f"choice {choice.name!r} is active in {case} and without effect: it is "
                    f"{own!r}, and with {rest} inputs, outputs, MACs and parameters stay the "
                    "same; leave it out, or say with active= where it decides something"
                )


def _choices_to_try(subject: Examined) -> Iterator[tuple[Case, list[int]]]:
    """Yield every choice of the smallest and the largest architecture, and others where active."""
    space, seen = subject.space, set[int]()
    ends = subject.cases[:2]
    for case in (*ends, *subject.sampled(100)):
        active = {
            column
            for column, choice in enumerate(space.choices)
            if choice.name in case.arch and len(choice.options) > 1
        }
        columns = active if case in ends else active - seen
        seen |= active
        yield case, sorted(columns)


def _others(subject: Examined, case: Case, column: int) -> Iterator[Case]:
    """Yield the architecture with other options of one choice, the farthest first."""
    space = subject.space
    (row,) = space.architectures([case.arch.mapping]).indices
    choice, own = space.choices[column], int(row[column])
    positions = sorted(range(len(choice.options)), key=lambda i: abs(i - own), reverse=True)
    for position in positions[:-1]:
        changed = row.copy()
        changed[column] = position
        call = f"{case.call} with {choice.name}={choice.options[position]!r}"
        yield Case(space.from_indices(changed[np.newaxis])[0], call)


def _differs(subject: Examined, case: Case, other: Case) -> bool:
    if subject.spec(case).inputs != subject.spec(other).inputs:
        return True
    subnet = subject.build(other)
    ours, theirs = subject.outputs(case), subject.outputs(other, subnet=subnet)
    if disagreement(theirs, ours) > SAME:
        return True
    with during(f"{other}: its subnet, while its MACs were counted,"):
        return module_costs(subnet, subject.spec(other).inputs) != subject.costs(case)


def _listed(choice: Choice, case: Case) -> str:
    return " or ".join(repr(o) for o in choice.options if o != case.arch[choice.name])


def every_input_matters(subject: Examined) -> Iterator[str]:
    """Other samples give other outputs, for every input by itself."""
    for case in subject.cases[:2]:
        inputs, changed = subject.inputs(case), subject.inputs(case, seed=1)
        before = subject.outputs(case, inputs)
        for name in inputs:
            after = subject.outputs(case, {**inputs, name: changed[name]})
            if disagreement(after, before) <= SAME:
                yield (
                    f"{case}: the outputs stay the same when input {name!r} changes; use it, or "
                    "leave it out of input_spec"
                )


def samples_do_not_see_their_batch(subject: Examined) -> Iterator[str]:
    """In eval mode a sample's outputs do not depend on what else is in its batch."""
    for case in subject.cases:
        inputs = subject.inputs(case)
        together = subject.outputs(case, inputs)
        worst = max(
            disagreement(
                subject.outputs(case, {name: array[i : i + 1] for name, array in inputs.items()}),
                [output[i : i + 1] for output in together],
            )
            for i in range(len(together[0]))
        )
        if not worst <= BATCH_TOLERANCE:
            yield (
                f"{case}: in eval mode, a sample alone and in a batch of 3 give outputs that "
                f"differ by {worst:.2g} of the largest ({BATCH_TOLERANCE:g} is allowed); use no "
                "statistics of the batch: norms need running ones (track_running_stats=True)"
            )


def statistics_are_recalibrated(subject: Examined) -> Iterator[str]:
    """Recalibration sets the statistics of every norm that keeps any, and nothing else."""
    types = subject.network.recalibrate
    for case in subject.cases[:2]:
        subnet = subject.build(case)
        norms = {name: m for name, m in subnet.named_modules() if _statistics(m)}
        left_out = [name for name, module in norms.items() if not isinstance(module, types)]
        if left_out:
            kinds = sorted({type(norms[name]).__name__ for name in left_out})
            yield (
                f"{case}: {len(left_out)} of {len(norms)} norms with running statistics are "
                f"not of the types in recalibrate (first: {left_out[0]!r}), so they would keep "
                f"those of another network; add {', '.join(kinds)} to recalibrate"
            )
            continue
        yield from _recalibration_problems(subject, case, subnet, norms)


def _recalibration_problems(
    subject: Examined, case: Case, subnet: nn.Module, norms: dict[str, nn.Module]
) -> Iterator[str]:
    before = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}
    with during(f"{case}: recalibration"):
        recalibrate(subnet, subject.network.recalibrate, iter([subject.inputs(case, 4)]))
    after = subnet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        f"{norm}.{name}".lstrip(".") for norm, m in norms.items() for name in _statistics(m)
    }
    if changed - expected:
        yield f"{case}: recalibration changes {min(changed - expected)!r}, which is no statistic"
    if not all(np.isfinite(output).all() for output in subject.outputs(case, subnet=subnet)):
        yield f"{case}: its outputs are not finite after recalibration"


def _statistics(module: nn.Module) -> list[str]:
    names = [name for name, _ in module.named_buffers(recurse=False)]
    if not isinstance(getattr(module, "running_mean", None), Tensor):
        return []
    return [name for name in names if name.startswith("running_") or name == "num_batches_tracked"]
