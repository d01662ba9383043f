"""Checks of subnets: building and its independence, choices, inputs, batch statistics."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.models.agreement import disagreement
from hwsearch.supernets.interface import of_modules
from hwsearch.testing.subject import Case, Examined, each_case, each_end

SAME = 1e-6
BATCH_TOLERANCE = 1e-4


@each_case
def subnets_build(case: Case) -> Iterator[str]:
    """The smallest, the largest and random subnets are built: in eval mode, float32, finite."""
    with case.during("subnet(arch)"):
        # Asked of the family itself: the engine puts what it gets into eval mode.
        network = case.net.network
        subnet: object = network.subnet(case.arch) if of_modules(network) else None
    if not isinstance(subnet, nn.Module):
        yield f"subnet(arch) is a {type(subnet).__name__}; return a torch.nn.Module"
        return
    training = [name for name, module in subnet.named_modules() if module.training]
    if training:
        yield (
            f"{len(training)} modules are in training mode (first: "
            f"{training[0] or 'the network itself'!r}); return subnet.eval()"
        )
    for name, tensor in subnet.state_dict().items():
        if problem := _tensor_problem(tensor):
            yield f"{name!r} {problem}"
            return


def _tensor_problem(tensor: Tensor) -> str | None:
    if tensor.is_meta:
        return "is on device 'meta', without numbers; fill in the inherited weights"
    if tensor.device.type != "cpu":
        return f"is on device {str(tensor.device)!r}; build on 'cpu'"
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        return f"is {tensor.dtype}; weights are torch.float32 (precision is made at export)"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return "holds NaN or infinite numbers"
    return None


@each_case
def subnets_answer_as_promised(case: Case) -> Iterator[str]:
    """Outputs are as many as input_spec names, float32, finite, with a row for each sample."""
    spec = case.spec
    for n in (1, 3):
        outputs = case.outputs(case.inputs(n))
        found = [
            f"output {name!r}, for {n} samples, {problem}"
            for name, output in zip(spec.outputs, outputs, strict=True)
            if (problem := _output_problem(output, n))
        ]
        owed = (n, len(spec.classes))
        if not found and spec.classes and outputs[0].shape != owed:
            found.append(
                f"output {spec.outputs[0]!r} has shape {outputs[0].shape} for {n} samples, but "
                f"input_spec names {len(spec.classes)} classes; owed is {owed}"
            )
        yield from found
        if found:
            return


def _output_problem(output: NDArray[Any], n: int) -> str | None:
    if output.shape[:1] != (n,):
        return f"has shape {output.shape}; its first axis is the batch, {n}"
    if output.dtype != np.float32:
        return f"is {output.dtype}; return float32"
    if not np.isfinite(output).all():
        return "holds NaN or infinite numbers"
    return None


def equal_architectures_are_equal_networks(subject: Examined) -> Iterator[str]:
    """Equal architectures give equal weights and outputs, at any time and in any order."""
    built = [case.build() for case in subject.cases]
    for case, first in zip(reversed(subject.cases), reversed(built), strict=True):
        twin = Case(case.net, subject.space.architectures([case.arch.mapping])[0], case.call)
        again = twin.build()
        if name := _unequal(first.state_dict(), again.state_dict()):
            yield (
                f"{case}: asked for twice, its subnet has another {name!r} the second time; "
                "weights come from the supernet alone, none is drawn when a subnet is built"
            )
            continue
        ours, theirs = (case.outputs(subnet=subnet) for subnet in (first, again))
        if any(not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            yield (
                f"{case}: asked for twice, its subnet has the same weights and other outputs the "
                "second time; forward must depend on its weights and inputs alone"
            )


def memory_is_never_shared(subject: Examined) -> Iterator[str]:
    """Changing a subnet in place changes neither another one nor the supernet."""
    standing = [case.build() for case in subject.cases]
    before = [_copy(subnet) for subnet in standing]
    taken = {_address(tensor) for subnet in standing for _, tensor in _tensors(subnet)}
    advice = "clone every tensor (hwsearch.supernets.checkpoints.leading_weights does)"
    for case, first, mine in zip(subject.cases, standing, before, strict=True):
        changed = case.build()
        kept = _copy(changed)
        if _unequal(mine, kept):
            continue  # not the same network again: another check says so
        if changed is first:
            yield f"{case}: subnet(arch) returns the same object twice; build a new one each time"
            continue
        shared = next((name for name, t in _tensors(changed) if _address(t) in taken), None)
        with torch.no_grad():
            for _, tensor in _tensors(changed):
                tensor.zero_()
        next_one = _unequal(mine, case.build().state_dict())
        changed.load_state_dict(kept)
        if next_one:
            yield (
                f"{case}: after its subnet was set to zero in place, the next one built has "
                f"another {next_one!r}: it shares memory with the supernet; {advice}"
            )
        elif shared:
            yield f"{case}: {shared!r} shares memory with a subnet built before; {advice}"
    for case, first, mine in zip(subject.cases, standing, before, strict=True):
        if name := _unequal(mine, first.state_dict()):
            yield f"{case}: building other subnets changed its {name!r}; subnets stand alone"


def _unequal(a: dict[str, Tensor], b: dict[str, Tensor]) -> str | None:
    """Return the first name whose tensors differ, or None."""
    for name in (*a, *(name for name in b if name not in a)):
        if name not in a or name not in b or a[name].dtype != b[name].dtype:
            return name
        if not torch.equal(a[name], b[name]):
            return name
    return None


def _copy(subnet: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in subnet.state_dict().items()}


def _tensors(subnet: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Return the parameters and buffers that have elements."""
    named = (*subnet.named_parameters(), *subnet.named_buffers())
    return [(name, tensor) for name, tensor in named if tensor.numel()]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@each_case
def global_seed_is_untouched(case: Case) -> Iterator[str]:
    """Asking for a subnet, its inputs or blocks draws nothing from PyTorch's global generator."""
    for ask in (case.net.subnet, case.net.input_spec, case.net.blocks):
        before = torch.get_rng_state()
        with case.during(f"{ask.__name__}(arch)"):
            ask(case.arch)
        if not torch.equal(torch.get_rng_state(), before):
            yield (
                f"{ask.__name__}(arch) draws from PyTorch's global generator; build on "
                "torch.device('meta'), or within torch.random.fork_rng(devices=[])"
            )


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
