"""Architectures from the largest down, by what reductions lose and save, and uniform cuts."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.space import Architectures, SearchSpace

_STEP: Final = 0.04  # share of the remaining cost that a step saves, at least

_SHARES: Final = 64  # of uniform cuts, many of which are the same

Function = Callable[[Architectures], NDArray[Any]]


def greedy_path(
    space: SearchSpace, names: Collection[str], losses: Function, costs: Function
) -> Architectures:
    """Return architectures from the largest to the smallest that reductions lead to.

    In each step the options of single choices are ranked by loss per cost saved, and the best of
    different choices are taken until they save 4% of what is left.

    Args:
        space: The whole search space or a part of it.
        names: Choices that may change.
        losses: Of n architectures: (n,).
        costs: Of n architectures: (n,).
    """
    current = space.largest()
    places = [place for place, name in enumerate(space.names) if name in names]
    path = [current]
    while True:
        reduced = _changed(current, places)
        saved = costs(current) - costs(reduced)
        useful = np.flatnonzero(saved > 0)
        if not len(useful):
            return Architectures.concatenate(path)
        reduced, saved = reduced[useful], saved[useful]
        lost = losses(reduced) - losses(current)
        current = _taken(current, reduced, saved, lost / saved, _STEP * float(costs(current)[0]))
        path.append(current)


def uniform_cuts(space: SearchSpace, names: Collection[str]) -> Architectures:
    """Return distinct architectures whose widths keep about one share each, the largest first.

    Args:
        space: The whole search space or a part of it.
        names: Choices of widths; all others are as in the largest architecture.
    """
    rows = np.repeat(space.largest().indices, _SHARES, axis=0)
    shares = np.linspace(1.0, 0.0, _SHARES, endpoint=False)
    for place, choice in enumerate(space.choices):
        numbers = [option for option in choice.options if isinstance(option, int | float)]
        if choice.name in names and len(numbers) == len(choice.options):
            kept = np.array(numbers) / max(numbers)
            rows[:, place] = np.abs(kept - shares[:, np.newaxis]).argmin(axis=1)
    return space.from_indices(rows).unique()


def _changed(current: Architectures, places: Sequence[int]) -> Architectures:
    """Return the architectures that differ in one active choice of one architecture."""
    space, (given,), (active,) = current.space, current.indices, current.active
    rows = []
    for place in places:
        for option in range(len(space.choices[place].options) if active[place] else 0):
            if option != given[place]:
                row = given.copy()
                row[place] = option
                rows.append(row)
    return space.from_indices(np.array(rows, np.int64).reshape(-1, len(given)))


def _taken(
    current: Architectures,
    reduced: Architectures,
    saved: NDArray[Any],
    ranks: NDArray[Any],
    wanted: float,
) -> Architectures:
    """Return an architecture with the best changes, until they save what is wanted."""
    (given,), row, total = current.indices, current.indices[0].copy(), 0.0
    for best in np.argsort(ranks, kind="stable"):
        places = np.flatnonzero(reduced.indices[best] != given)
        if (row[places] != given[places]).any():
            continue
        row[places] = reduced.indices[best, places]
        total += float(saved[best])
        if total >= wanted:
            break
    return current.space.from_indices(row[np.newaxis])
