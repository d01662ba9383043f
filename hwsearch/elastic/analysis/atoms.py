"""Atoms: the channel indices of a graph as numbers, and which of them can only go together.

A *layer* is an array of atoms that broadcasts against the shape of one value: it has as many axes
as the value, of size 1 where the atom does not depend on the index. An element of the value is
removed with its atom. Atom 0 is pinned: it is never removed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hwsearch.errors import HwsearchError

Layer = NDArray[np.int64]
PINNED = 0
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Pin:
    """Atoms that stay.

    Attributes:
        what: The node or value that holds them.
        reason: For users.
    """

    atoms: NDArray[np.int64]
    what: str
    reason: str


def varying(layer: Layer) -> tuple[int, ...]:
    """Return the axes that the atoms of a layer depend on."""
    return tuple(axis for axis, size in enumerate(layer.shape) if size > 1)


def first_along(layer: Layer, axes: Iterable[int]) -> Layer:
    """Return a layer at index 0 of some axes, which keep size 1."""
    chosen = {axis for axis in axes if layer.shape[axis] > 1}
    if not chosen:
        return layer
    return layer[tuple(slice(0, 1) if a in chosen else slice(None) for a in range(layer.ndim))]


def compressed(layer: Layer) -> Layer:
    """Return an equal layer with size 1 on the axes along which the atoms are all the same."""
    for axis in varying(layer):
        first = layer.take([0], axis)
        if (layer == first).all():
            layer = first
    return layer


def aligned(layer: Layer, rank: int) -> Layer:
    """Return a layer with axes of size 1 before it, as broadcasting adds them."""
    return layer.reshape((1,) * (rank - layer.ndim) + layer.shape) if layer.ndim < rank else layer


def reshaped(layer: Layer, old: Sequence[int], new: Sequence[int]) -> Layer:
    """Return the layer of a value of shape ``old`` after a reshape to ``new``.

    Only axes that are merged or split are expanded.
    """
    result: list[int] = [1] * len(new)
    expanded: list[int] = []  # sizes of the layer where axes are merged or split
    target: list[int] = []
    where: list[int] = []
    for olds, news in _segments(old, new):
        if all(layer.shape[axis] == 1 for axis in olds):
            continue
        expanded += [old[axis] for axis in olds]
        target += [new[axis] for axis in news]
        where += news
    moved = [a for olds, _ in _segments(old, new) for a in olds if _varies(layer, olds)]
    small = layer.reshape([layer.shape[axis] for axis in moved])
    full = np.broadcast_to(small, expanded).reshape(target)
    for axis, size in zip(where, target, strict=True):
        result[axis] = size
    return compressed(full.reshape(result))


def _varies(layer: Layer, axes: Sequence[int]) -> bool:
    return any(layer.shape[axis] > 1 for axis in axes)


def _segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the shortest runs of axes of two shapes with equal numbers of elements, in order."""
    found = []
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news = [i], [j]
        left, right = old[i], new[j]
        while left != right:
            if left < right:
                i += 1
                olds.append(i)
                left *= old[i]
            else:
                j += 1
                news.append(j)
                right *= new[j]
        found.append((olds, news))
        i += 1
        j += 1
    # Trailing axes of size 1 on either side depend on nothing.
    return found


class Atoms:
    """All atoms of a graph, with the pairs that are equal; a union-find that is solved at the end.

    Attributes:
        count: Number of atoms, the pinned one included.
        pins: What is held by what.
    """

    def __init__(self) -> None:
        self.count = 1
        self.pins: list[Pin] = []
        self._left: list[NDArray[np.int64]] = []
        self._right: list[NDArray[np.int64]] = []

    def new(self, number: int) -> NDArray[np.int64]:
        """Return new atoms."""
        if self.count + number > _MOST:
            raise HwsearchError(f"the graph has more than {_MOST} channel indices")
        self.count += number
        return np.arange(self.count - number, self.count, dtype=np.int64)

    def join(self, first: Layer, second: Layer, what: str) -> None:
        """Make the atoms of two layers equal, element by element, after broadcasting."""
        if first is second:
            return
        left, right = np.broadcast_arrays(first, second)
        differ = left != right
        if not differ.any():
            return
        left, right = left[differ], right[differ]
        held = (left == PINNED) | (right == PINNED)
        if held.any():
            atoms = (left + right)[held]  # one of the two is 0
            self.pin(atoms, what, "they are combined with channels that cannot be removed")
        self._left.append(left[~held])
        self._right.append(right[~held])

    def join_along(self, layer: Layer, axes: Iterable[int], what: str) -> None:
        """Make all atoms along some axes equal."""
        for axis in axes:
            size = layer.shape[axis]
            if size > 1:
                head, tail = layer.take(range(size - 1), axis), layer.take(range(1, size), axis)
                self.join(head, tail, what)

    def pin(self, atoms: NDArray[np.int64], what: str, reason: str) -> None:
        """Keep atoms from being removed."""
        found = np.unique(atoms)
        found = found[found != PINNED]
        if found.size:
            self.pins.append(Pin(found, what, reason))

    def components(self, *, with_pins: bool = True) -> NDArray[np.int64]:
        """Return the component of each atom; that of pinned atoms is 0, if pins are joined."""
        left, right = [*self._left], [*self._right]
        if with_pins:
            for pin in self.pins:
                left.append(pin.atoms)
                right.append(np.zeros_like(pin.atoms))
        rows = np.concatenate(left) if left else np.zeros(0, np.int64)
        columns = np.concatenate(right) if right else np.zeros(0, np.int64)
        graph = coo_array(
            (np.ones(rows.size), (rows.astype(np.int32), columns.astype(np.int32))),
            shape=(self.count, self.count),
        )
        _, labels = connected_components(graph, directed=False)
        # The first atom of a component names it, so that atom 0 is component 0.
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)
