"""One-hot and thermometer encodings of architectures as 0/1 columns.

The columns of an inactive choice are all zeros, so that an architecture has one encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hwsearch.architectures import Architectures
    from hwsearch.space import SearchSpace


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Choice and option of every column; ``ordered`` columns are 1 for all later options, too."""

    choice: NDArray[np.int64]
    option: NDArray[np.int64]
    ordered: NDArray[np.bool_]


def onehot(archs: Architectures) -> NDArray[np.float64]:
    """Return one column per option of every choice: ``(len(archs), n_columns)``."""
    return np.ascontiguousarray(_encoded(archs, _columns(archs.space, in_order=False)))


def thermometer(archs: Architectures) -> NDArray[np.float64]:
    """Return the thermometer encoding: ``(len(archs), n_columns)``.

    An ordered choice has one column per option after the first, 1 for that option and all later
    ones, so that every step up has its own weight; a conditional one has before them a column
    that is 1 where it is active. An unordered choice is one-hot.
    """
    return _encoded(archs, thermometer_columns(archs.space))


def thermometer_columns(space: SearchSpace) -> Columns:
    """Return the columns of `thermometer`."""
    return _columns(space, in_order=True)


def column_counts(space: SearchSpace) -> list[int]:
    """Return the number of `thermometer` columns of every choice."""
    columns = thermometer_columns(space)
    counts: list[int] = np.bincount(columns.choice, minlength=len(space.choices)).tolist()
    return counts


@lru_cache(maxsize=64)
def _columns(space: SearchSpace, *, in_order: bool) -> Columns:
    rows: list[tuple[int, int, bool]] = []
    for position, choice in enumerate(space.choices):
        ordered = in_order and choice.ordered
        first = int(ordered and choice.active is None)
        rows += [(position, option, ordered) for option in range(first, len(choice.options))]
    positions, options, are_ordered = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Columns(positions, options, are_ordered.astype(np.bool_))


def _encoded(archs: Architectures, columns: Columns) -> NDArray[np.float64]:
    chosen = np.where(archs.active, archs.indices, -1).take(columns.choice, axis=1)
    ones = np.where(columns.ordered, chosen >= columns.option, chosen == columns.option)
    return ones.astype(np.float64)
