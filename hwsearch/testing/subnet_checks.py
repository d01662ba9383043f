"""Checks of building subnets: success, repeatability, independent memory."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.testing.subject import Case, Examined, during, unequal


def subnets_build(subject: Examined) -> Iterator[str]:
    """The smallest, the largest and random subnets are built: in eval mode, float32, finite."""
    for case in subject.cases:
        with during(f"{case}: subnet(arch)"):
            # Asked of the family itself: the engine puts what it gets into eval mode.
            subnet = subject.network.subnet(case.arch)
        if not isinstance(subnet, nn.Module):
            yield f"{case}: subnet(arch) is a {type(subnet).__name__}; return a torch.nn.Module"
            continue
        training = [name for name, module in subnet.named_modules() if module.training]
        if training:
            yield (
                f"{case}: {len(training)} modules are in training mode (first: "
                f"{training[0] or 'the network itself'!r}); return subnet.eval()"
            )
        for name, tensor in subnet.state_dict().items():
            if problem := _tensor_problem(tensor):
                yield f"{case}: {name!r} {problem}"
                break


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


def subnets_answer_as_promised(subject: Examined) -> Iterator[str]:
    """Outputs are as many as input_spec names, float32, finite, with a row for each sample."""
    for case in subject.cases:
        spec = subject.spec(case)
        for n in (1, 3):
            outputs = subject.outputs(case, subject.inputs(case, n))
            if len(outputs) != len(spec.outputs):
                yield (
                    f"{case}: forward returns {len(outputs)} outputs, but input_spec names "
                    f"{len(spec.outputs)}: {', '.join(spec.outputs)}; make them agree"
                )
                break
            found = [
                f"{case}: output {name!r}, for {n} samples, {problem}"
                for name, output in zip(spec.outputs, outputs, strict=True)
                if (problem := _output_problem(output, n))
            ]
            if not found and spec.classes and outputs[0].shape != (n, len(spec.classes)):
                found.append(
                    f"{case}: output {spec.outputs[0]!r} has shape {outputs[0].shape} for {n} "
                    f"samples, but input_spec names {len(spec.classes)} classes; owed is "
                    f"{(n, len(spec.classes))}"
                )
            yield from found
            if found:
                break


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
    first = {case.arch.key: subject.build(case) for case in subject.cases}
    for case in reversed(subject.cases):
        twin = Case(subject.space.architectures([case.arch.mapping])[0], case.call)
        again = subject.build(twin)
        built = first[case.arch.key]
        if name := unequal(built.state_dict(), again.state_dict()):
            yield (
                f"{case}: asked for twice, its subnet has another {name!r} the second time; "
                "weights come from the supernet alone, none is drawn when a subnet is built"
            )
            continue
        ours, theirs = (subject.outputs(case, subnet=subnet) for subnet in (built, again))
        if any(not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            yield (
                f"{case}: asked for twice, its subnet has the same weights and other outputs the "
                "second time; forward must depend on its weights and inputs alone"
            )


def memory_is_never_shared(subject: Examined) -> Iterator[str]:
    """Changing a subnet in place changes neither another one nor the supernet."""
    standing = {case.arch.key: subject.build(case) for case in subject.cases}
    before = {key: _copy(subnet) for key, subnet in standing.items()}
    advice = "clone every tensor (hwsearch.supernets.checkpoints.leading_weights does)"
    for case in subject.cases:
        changed = subject.build(case)
        mine, kept = before[case.arch.key], _copy(changed)
        if unequal(mine, kept):
            continue  # not the same network again: another check says so
        if changed is standing[case.arch.key]:
            yield f"{case}: subnet(arch) returns the same object twice; build a new one each time"
            continue
        shared = _common_memory(changed, list(standing.values()))
        _zero(changed)
        next_one = unequal(mine, subject.build(case).state_dict())
        changed.load_state_dict(kept)
        if next_one:
            yield (
                f"{case}: after its subnet was set to zero in place, the next one built has "
                f"another {next_one!r}: it shares memory with the supernet; {advice}"
            )
        elif shared:
            yield f"{case}: {shared!r} shares memory with a subnet built before; {advice}"
    for case in subject.cases:
        if name := unequal(before[case.arch.key], standing[case.arch.key].state_dict()):
            yield f"{case}: building other subnets changed its {name!r}; subnets stand alone"


def _zero(subnet: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*subnet.parameters(), *subnet.buffers()):
            tensor.zero_()


def _copy(subnet: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in subnet.state_dict().items()}


def _common_memory(subnet: nn.Module, others: list[nn.Module]) -> str | None:
    taken = {
        tensor.untyped_storage().data_ptr()
        for other in others
        for tensor in (*other.parameters(), *other.buffers())
        if tensor.numel()
    }
    named = (*subnet.named_parameters(), *subnet.named_buffers())
    shared = (n for n, t in named if t.numel() and t.untyped_storage().data_ptr() in taken)
    return next(shared, None)


def global_seed_is_untouched(subject: Examined) -> Iterator[str]:
    """Asking for a subnet, its inputs or blocks draws nothing from PyTorch's global generator."""
    for case in subject.cases:
        for ask in (subject.net.subnet, subject.net.input_spec, subject.net.blocks):
            before = _generator()
            with during(f"{case}: {ask.__name__}(arch)"):
                ask(case.arch)
            if _generator() != before:
                yield (
                    f"{case}: {ask.__name__}(arch) draws from PyTorch's global generator; build "
                    "on torch.device('meta'), or within torch.random.fork_rng(devices=[])"
                )


def _generator() -> str:
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
