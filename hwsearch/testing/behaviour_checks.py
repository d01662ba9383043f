"""Checks of the behaviour of subnets: choices, inputs, batch statistics."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.models.agreement import disagreement
from hwsearch.testing.subject import Case, Examined, each_case, each_end

SAME = 1e-6
BATCH_TOLERANCE = 1e-4


def every_choice_matters(subject: Examined) -> Iterator[str]:
    """Changing one active choice changes the network: its outputs, MACs or parameters.

    Tried for every choice of the smallest and the largest architecture, and for others where a
    random architecture has them.
    """
    seen = set[int]()
    ends = subject.cases[:2]
    for case in (*ends, *subject.sampled(100)):
        active = {
            column
            for column, choice in enumerate(subject.space.choices)
            if choice.name in case.arch and len(choice.options) > 1
        }
        columns = active if case in ends else active - seen
        seen |= active
        for column in sorted(columns):
            if any(_differ(case, other) for other in _others(case, column)):
                continue
            choice = subject.space.choices[column]
            own = case.arch[choice.name]
            rest = " or ".join(repr(option) for option in choice.options if option != own)
            yield (
                f"choice {choice.name!r} is active in {case} and without effect: it is "
                f"{own!r}, and with {rest} inputs, outputs, MACs and parameters stay the "
                "same; leave it out, or say with active= where it decides something"
            )


def _others(case: Case, column: int) -> Iterator[Case]:
    """Yield the architecture with other options of one choice, the farthest first."""
    space = case.arch.space
    (row,) = space.architectures([case.arch.mapping]).indices
    choice, own = space.choices[column], int(row[column])
    positions = sorted(range(len(choice.options)), key=lambda i: abs(i - own), reverse=True)
    for position in positions[:-1]:
        changed = row.copy()
        changed[column] = position
        call = f"{case.call} with {choice.name}={choice.options[position]!r}"
        yield Case(case.net, space.from_indices(changed[np.newaxis])[0], call)


def _differ(one: Case, other: Case) -> bool:
    return (
        one.spec.inputs != other.spec.inputs
        or disagreement(other.outputs(), one.outputs()) > SAME
        or one.costs != other.costs
    )


@each_end
def every_input_matters(case: Case) -> Iterator[str]:
    """Other samples give other outputs, for every input by itself."""
    inputs, changed = case.inputs(), case.inputs(seed=1)
    before = case.outputs(inputs)
    for name in inputs:
        after = case.outputs({**inputs, name: changed[name]})
        if disagreement(after, before) <= SAME:
            yield (
                f"the outputs stay the same when input {name!r} changes; use it, or leave it out "
                "of input_spec"
            )


@each_case
def samples_do_not_see_their_batch(case: Case) -> Iterator[str]:
    """In eval mode a sample's outputs do not depend on what else is in its batch."""
    inputs = case.inputs()
    together = case.outputs(inputs)
    worst = max(
        disagreement(
            case.outputs({name: array[i : i + 1] for name, array in inputs.items()}),
            [output[i : i + 1] for output in together],
        )
        for i in range(len(together[0]))
    )
    if not worst <= BATCH_TOLERANCE:
        yield (
            f"in eval mode, a sample alone and in a batch of 3 give outputs that differ by "
            f"{worst:.2g} of the largest ({BATCH_TOLERANCE:g} is allowed); use no statistics of "
            "the batch: norms need running ones (track_running_stats=True)"
        )


@each_end
def statistics_are_recalibrated(case: Case) -> Iterator[str]:
    """Recalibration sets the statistics of every norm that keeps any, and nothing else."""
    types = case.net.recalibrate
    subnet = case.build()
    norms = {name: m for name, m in subnet.named_modules() if _statistics(m)}
    left_out = [name for name, module in norms.items() if not isinstance(module, types)]
    if left_out:
        kinds = sorted({type(norms[name]).__name__ for name in left_out})
        yield (
            f"{len(left_out)} of {len(norms)} norms with running statistics are not of the types "
            f"in recalibrate (first: {left_out[0]!r}), so they would keep those of another "
            f"network; add {', '.join(kinds)} to recalibrate"
        )
        return
    before = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}
    with case.during("recalibration"):
        recalibrate(subnet, types, iter([case.inputs(4)]))
    after = subnet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        f"{norm}.{name}".lstrip(".") for norm, m in norms.items() for name in _statistics(m)
    }
    if changed - expected:
        yield f"recalibration changes {min(changed - expected)!r}, which is no statistic"
    if not all(np.isfinite(output).all() for output in case.outputs(subnet=subnet)):
        yield "its outputs are not finite after recalibration"


def _statistics(module: nn.Module) -> list[str]:
    names = [name for name, _ in module.named_buffers(recurse=False)]
    if not isinstance(getattr(module, "running_mean", None), Tensor):
        return []
    return [name for name in names if name.startswith("running_") or name == "num_batches_tracked"]
