"""Entries of a module's state dict that the weights of a graph come from, found by value."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hwsearch.elastic.graph import Graph, Origin
from hwsearch.elastic.pytorch.names import state_arrays

Array: TypeAlias = NDArray[Any]
_MAX_AXES = 5  # orders of more axes are not tried
_RELATIVE = 1e-4  # of a weight with its norm folded in, which is rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The entry of a state dict that a weight comes from.

    Attributes:
        entry: Its name.
        axes: Axis of the entry for each axis of the weight; -1 for an axis of size 1 that the
            entry does not have.
        norm: Name of the batch norm that is folded into the weight, or empty.
    """

    entry: str
    axes: tuple[int, ...]
    norm: str = ""


class Matcher:
    """Finds the entries of a module's state dict that weights of a graph come from.

    Names are tried first, and believed only if the values agree: exporters name tensors that they
    have computed like what they were computed from.
    """

    def __init__(self, graph: Graph, module: nn.Module) -> None:
        self.graph = graph
        self.state = state_arrays(module)
        self._order = [name for name, _ in module.named_modules()]
        self._norms = {name: _factor(norm) for name, norm in norms_of(module).items()}
        self._by_range: dict[tuple[Any, ...], list[str]] = {}
        for name, array in self.state.items():
            if array.dtype.kind == "f" and array.size:
                self._by_range.setdefault(_range(array), []).append(name)
        self._found: dict[str, Match | None] = {}

    def of(self, weight: str) -> Match | None:
        """Return the match of a weight, or None."""
        if weight not in self._found:
            self._found[weight] = self._match(weight, self.graph.weights[weight])
        return self._found[weight]

    def part_of(self, weight: str, axis: int, prefix: str) -> Match | None:
        """Return an entry of a module from which a weight picks numbers, position by position.

        Such are tables of position biases per head, of which the weight has an entry for each pair
        of positions.

        Args:
            weight: The weight.
            axis: Its axis whose positions are those of an axis of the entry.
            prefix: Name of the module, and a dot.
        """
        array = self.graph.weights[weight]
        size = array.shape[axis]
        for name, entry in self.state.items():
            if not name.startswith(prefix) or entry.dtype.kind != "f":
                continue
            for own in range(entry.ndim):
                if entry.shape[own] == size and all(
                    np.isin(np.take(array, i, axis), np.take(entry, i, own)).all()
                    for i in range(size)
                ):
                    axes = tuple(own if each == axis else -1 for each in range(array.ndim))
                    return Match(entry=name, axes=axes)
        return None

    def _match(self, weight: str, array: Array) -> Match | None:
        origin = self.graph.origins.get(weight, Origin(name=weight))
        named = [origin.name] if origin.name in self.state else []
        for name in named:
            axes = _axes(array, self.state[name])
            if axes is not None:
                return Match(entry=name, axes=axes)
        if array.dtype.kind != "f" or array.size < 2 or array.ndim > _MAX_AXES:
            return None
        others = [n for n in self._by_range.get(_range(array), ()) if n not in named]
        equal = [(n, axes) for n in others if (axes := _axes(array, self.state[n])) is not None]
        if len(equal) == 1 or (equal and _are_one([self.state[name] for name, _ in equal])):
            return Match(entry=equal[0][0], axes=equal[0][1])
        if array.ndim < 2:
            return None
        for name in dict.fromkeys((*named, *_of_size(self.state, array.size))):
            found = self._folded(name, array, origin)
            if found is not None:
                return found
        return None

    def _folded(self, name: str, array: Array, origin: Origin) -> Match | None:
        """Return the match of a weight that is an entry times the factors of a batch norm."""
        entry = self.state[name]
        stated = {each.rpartition(".")[0] for each in origin.norm}
        for axes in _orders(array, entry):
            arranged = _arranged(entry, axes).reshape(array.shape).astype(np.float64)
            for axis in dict.fromkeys((0, 1, array.ndim - 1)):
                found = _factors(array, arranged, axis)
                if found is None:
                    continue
                norms = [n for n, own in self._norms.items() if _is_near(found, own)]
                if norms:
                    return Match(entry=name, axes=axes, norm=self._next(name, norms, stated))
        return None

    def _next(self, entry: str, norms: list[str], stated: set[str]) -> str:
        """Return the stated one of several norms of equal factors, or the first after a layer."""
        owner = entry.rpartition(".")[0]
        after = self._order[self._order.index(owner) :] if owner in self._order else []
        best = [n for n in norms if n in stated] or [n for n in after if n in norms] or norms
        return best[0]


def norms_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the batch norms of a module by name, those that are frozen included."""
    return {
        name: each
        for name, each in module.named_modules()
        if getattr(each, "running_var", None) is not None and hasattr(each, "eps")
    }


def _factor(norm: Any) -> NDArray[np.float64]:
    """Return what a batch norm multiplies each channel by."""
    root: NDArray[np.float64] = np.sqrt(
        norm.running_var.detach().numpy().astype(np.float64) + norm.eps
    )
    scale = getattr(norm, "weight", None)
    return np.asarray(1 / root if scale is None else scale.detach().numpy() / root, np.float64)


def _range(array: Array) -> tuple[Any, ...]:
    """Return what two arrays have in common if one is the other with its axes in another order."""
    sizes = tuple(sorted(size for size in array.shape if size > 1))
    return sizes, float(array.min()), float(array.max())


def _of_size(state: Mapping[str, Array], size: int) -> Iterator[str]:
    return (name for name, each in state.items() if each.size == size and each.dtype.kind == "f")


def _are_one(arrays: list[Array]) -> bool:
    return len({array.__array_interface__["data"][0] for array in arrays}) == 1


def _orders(array: Array, entry: Array) -> Iterator[tuple[int, ...]]:
    """Yield axes, as of `Match`, with which an entry has the shape of a weight."""
    long = [axis for axis, size in enumerate(array.shape) if size > 1]
    own = [axis for axis, size in enumerate(entry.shape) if size > 1]
    short = [axis for axis, size in enumerate(entry.shape) if size == 1]
    if len(long) != len(own) or len(own) > _MAX_AXES:
        return
    for order in itertools.permutations(own):
        if all(entry.shape[a] == array.shape[b] for a, b in zip(order, long, strict=True)):
            spare, axes = list(short), [-1] * array.ndim
            for axis, position in zip(order, long, strict=True):
                axes[position] = axis
            for position in range(array.ndim):
                if axes[position] < 0 and spare:
                    axes[position] = spare.pop(0)
            if not spare:
                yield tuple(axes)


def _axes(array: Array, entry: Array) -> tuple[int, ...] | None:
    """Return the axes with which an entry has the values of a weight, or None."""
    if array.size != entry.size or array.dtype != entry.dtype:
        return None
    for axes in _orders(array, entry):
        if np.array_equal(_arranged(entry, axes).reshape(array.shape), array):
            return axes
    return None


def _arranged(entry: Array, axes: tuple[int, ...]) -> Array:
    return entry.transpose([axis for axis in axes if axis >= 0])


def _factors(array: Array, entry: NDArray[np.float64], axis: int) -> NDArray[np.float64] | None:
    """Return by what each position of an axis was multiplied, or None if that is not all."""
    others = tuple(each for each in range(array.ndim) if each != axis)
    energy = np.square(entry).sum(others)
    factors = (array * entry).sum(others) / np.where(energy > 0, energy, 1)
    shape = [1] * array.ndim
    shape[axis] = -1
    error = np.abs(array - entry * factors.reshape(shape)).max(initial=0)
    return factors if error <= _RELATIVE * np.abs(array).max(initial=0) else None


def _is_near(found: NDArray[np.float64], factor: NDArray[np.float64]) -> bool:
    """Return whether factors are those of a norm; those of rows of zeros are not known."""
    if len(found) != len(factor):
        return False
    known = found != 0
    return bool(known.any() and np.allclose(found[known], factor[known], 1e-3))
