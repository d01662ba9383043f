"""Architectures as 0/1 columns that count steps up, which gains of a regression model are for."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwsearch.prediction.base import BoolArray, FloatArray
from hwsearch.space import Architectures, Choice, SearchSpace

IntArray = NDArray[np.int64]


def encode_steps(archs: Architectures) -> FloatArray:
    """Encode architectures as 0/1 columns that count steps; inactive choices are all zeros.

    An ordered choice has one column per option after the first, 1 where the option is that one or
    a later one, so that every step up has a gain of its own; before them, where the choice has a
    condition, one that says whether it is active. An unordered choice is one-hot.

    Returns:
        ``(len(archs), n_columns)``.
    """
    column = columns_in(archs.space)
    reached = np.where(archs.active, archs.indices, -1)[:, column.choice]
    encoded = np.where(column.ordered, reached >= column.option, reached == column.option)
    return encoded.astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What the columns of `encode_steps` stand for.

    Attributes:
        choice: ``(n_columns,)``, position of its choice.
        option: ``(n_columns,)``, position of its option; of an ordered choice, the one reached.
        ordered: ``(n_columns,)``, whether it counts a step up.
    """

    choice: IntArray
    option: IntArray
    ordered: BoolArray


@lru_cache(maxsize=32)
def columns_in(space: SearchSpace) -> Columns:
    """Say what the columns of `encode_steps` stand for."""
    columns = [
        (position, option, choice.ordered)
        for position, choice in enumerate(space.choices)
        for option in range(_first_step(choice) if choice.ordered else 0, len(choice.options))
    ]
    positions, options, ordered = np.array(columns, dtype=np.int64).reshape(-1, 3).T
    return Columns(positions, options, ordered.astype(np.bool_))


def step_columns(space: SearchSpace) -> BoolArray:
    """Mark the columns of `encode_steps` that count a step up of an ordered choice."""
    return columns_in(space).ordered


def step_widths(space: SearchSpace) -> list[int]:
    """Number of columns of `encode_steps` that every choice has, in their order."""
    widths: list[int] = np.bincount(
        columns_in(space).choice, minlength=len(space.choices)
    ).tolist()
    return widths


def _first_step(choice: Choice) -> int:
    return 1 if choice.active is None else 0
