"""A surrogate for the architectures of one search space."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.errors import InputError
from hwsearch.space import Architectures, Choice, SearchSpace
from hwsearch.surrogates.base import BoolArray, FloatArray, Surrogate
from hwsearch.surrogates.saturating import SaturatingProcess


class Predictor:
    """Predicts one number of architectures from the ones where it is known.

    Args:
        space: The search space that all architectures come from.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._surrogate: Surrogate = SaturatingProcess(step_columns(space))

    def fit(self, archs: Architectures, values: ArrayLike) -> Self:
        """Learn the values of n architectures.

        Args:
            archs: n of them, at least 1; repeated ones count as repeated measurements.
            values: ``(n,)``, finite, in any unit and direction.

        Raises:
            InputError: Architectures of another space, lengths that differ, or a value that is
                not finite.
        """
        if np.shape(values) != (len(archs),):
            raise InputError(
                f"values of shape {np.shape(values)} do not fit {len(archs)} architectures; "
                "give one number for each"
            )
        self.space.check_own(archs)
        self._surrogate.fit(encode_steps(archs), values)
        return self

    def predict(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation, each ``(len(archs),)``, in the unit of the values.

        The deviation is that of the true value, without the noise of a measurement.

        Raises:
            InputError: Architectures of another space, or nothing was fitted.
        """
        self.space.check_own(archs)
        return self._surrogate.predict(encode_steps(archs))


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
