"""Branches and layers left out of a module: submodules replaced by zeros or by nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.elastic.graph import Branch, RepeatedLayer, Structure
from hwsearch.elastic.pytorch.match import Matcher
from hwsearch.errors import InputError


class Zero(nn.Module):
    """Stands in for a submodule on a branch that is left out: zeros of the input's shape.

    Args:
        outputs: Length of the tuple that the submodule returned, its first entry the tensor; 0 for
            a tensor alone.
    """

    def __init__(self, outputs: int = 0) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return zeros like the first tensor."""
        given = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        zeros = torch.zeros_like(given)
        return (zeros, *[None] * (self.outputs - 1)) if self.outputs else zeros


class Skip(nn.Module):
    """Stands in for a submodule that is left out: returns its input.

    Args:
        outputs: As of `Zero`.
    """

    def __init__(self, outputs: int = 0) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first tensor."""
        given = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        return (given, *[None] * (self.outputs - 1)) if self.outputs else given


def leave_out(
    module: nn.Module,
    structure: Structure,
    matcher: Matcher,
    dropped: list[str],
    run: Callable[[nn.Module], None],
    agrees: Callable[[nn.Module, list[str]], bool],
) -> None:
    """Leave branches and layers out of a module, in place, before anything else in it is cut.

    Args:
        module: The module; its weights are those of the structure.
        structure: Of the whole model.
        matcher: Of its weights and the module's.
        dropped: Branches and layers; layers before the branches in them.
        run: Runs a module on the example inputs.
        agrees: Whether a module gives the outputs of the model without these branches.

    Raises:
        InputError: No replacement of submodules leaves a branch out.
    """
    order = _outputs_of(module, run) if dropped else {}
    parts: dict[str, Branch | RepeatedLayer] = {each.name: each for each in structure.branches}
    parts |= {layer.name: layer for layer in structure.layers}
    left_out: set[str] = set()
    for number, name in enumerate(dropped, 1):
        if left_out.issuperset(parts[name].nodes):  # of a layer that is left out itself
            continue
        left_out |= set(parts[name].nodes)
        dead = _modules_of(parts[name], structure, matcher)
        for replacements in _candidates(module, dead, order):
            before = {each: module.get_submodule(each) for each in replacements}
            for each, new in replacements.items():
                _set(module, each, new)
            if agrees(module, dropped[:number]):
                break
            for each, old in before.items():
                _set(module, each, old)
        else:
            raise InputError(
                f"the module cannot be cut: no submodule that could be left out is what {name!r} "
                "consists of. Freeze it, or use the exported ONNX model"
            )


def _modules_of(part: Branch | RepeatedLayer, structure: Structure, matcher: Matcher) -> set[str]:
    """Return the names of the modules that have the weights of a branch or layer."""
    nodes = {node.name: node for node in structure.graph.proto.graph.node}
    found = set()
    for name in part.nodes:
        for value in nodes[name].input if name in nodes else ():
            match = matcher.of(value) if value in structure.graph.weights else None
            if match is not None:
                found.add(match.entry.rpartition(".")[0])
                if match.norm:
                    found.add(match.norm)
    return found


def _candidates(
    module: nn.Module, dead: set[str], order: dict[str, int]
) -> Iterator[dict[str, nn.Module]]:
    """Yield replacements of submodules that may leave a branch out, the simplest first."""
    if not dead:
        return
    root = _common(dead)
    ran = list(order)
    if root and _has_only(module, root, dead):
        yield {root: Zero(order.get(root, 0))}
        yield {root: Skip(order.get(root, 0))}
    # Submodules beside others that stay: one gives zeros, those before it nothing.
    prefix = f"{root}." if root else ""
    parts = {prefix + name.removeprefix(prefix).partition(".")[0] for name in dead if name != root}
    parts = {part for part in parts if _has_only(module, part, dead)}
    for last in sorted(parts, key=lambda part: ran.index(part) if part in order else -1)[::-1]:
        yield {
            part: Zero(order.get(part, 0)) if part == last else Skip(order.get(part, 0))
            for part in parts
        }


def _common(names: set[str]) -> str:
    """Return the innermost module that holds all of these."""
    paths = [name.split(".") for name in sorted(names)]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _has_only(module: nn.Module, name: str, dead: set[str]) -> bool:
    """Return whether all weights below a submodule are of these modules."""
    return all(
        f"{name}.{inner}".rstrip(".") in dead
        for inner, each in module.get_submodule(name).named_modules()
        if any(True for _ in each.parameters(recurse=False))
    )


def _outputs_of(module: nn.Module, run: Callable[[nn.Module], None]) -> dict[str, int]:
    """Return the submodules in the order in which they ran, with the length of their tuples."""
    found: dict[str, int] = {}
    hooks = []

    def noted(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_module: nn.Module, _inputs: Any, result: Any) -> None:
            found.pop(name, None)
            found[name] = len(result) if isinstance(result, tuple) else 0

        return note

    for name, each in module.named_modules():
        if name:
            hooks.append(each.register_forward_hook(noted(name)))
    try:
        run(module)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _set(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    module.get_submodule(parent)._modules[own] = new
