"""Architectures as 0/1 columns that count steps up, which gains of a regression model are for."""

import numpy as np

from hwsearch.space import Architectures, Choice, SearchSpace
from hwsearch.surrogates.base import BoolArray, FloatArray


def encode_steps(archs: Architectures) -> FloatArray:
    """Encode architectures as 0/1 columns that count steps; inactive choices are all zeros.

    An ordered choice has one column per option after the first, 1 where the option is that one or
    a later one, so that every step up has a gain of its own; before them, where the choice has a
    condition, one that says whether it is active. An unordered choice is one-hot.

    Returns:
        ``(len(archs), n_columns)``.
    """
    columns = []
    for position, choice in enumerate(archs.space.choices):
        index = np.where(archs.active[:, position], archs.indices[:, position], -1)[:, np.newaxis]
        if choice.ordered:
            columns.append(index >= np.arange(_first_step(choice), len(choice.options)))
        else:
            columns.append(index == np.arange(len(choice.options)))
    encoded: FloatArray = np.concatenate(columns, axis=1, dtype=np.float64)
    return encoded


def step_columns(space: SearchSpace) -> BoolArray:
    """Mark the columns of `encode_steps` that count a step up of an ordered choice."""
    widths = zip(step_widths(space), space.choices, strict=True)
    return np.concatenate([np.full(width, choice.ordered) for width, choice in widths])


def step_widths(space: SearchSpace) -> list[int]:
    """Number of columns of `encode_steps` that every choice has, in their order."""
    return [len(c.options) - (_first_step(c) if c.ordered else 0) for c in space.choices]


def _first_step(choice: Choice) -> int:
    return 1 if choice.active is None else 0
