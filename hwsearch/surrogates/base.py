"""What a regression model has to offer, and the checks that all of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError

if TYPE_CHECKING:
    from typing import Self  # Python 3.10, on which a kit may run, has none

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Surrogate(Protocol):
    """A regression model that says how sure it is; a second `fit` forgets the first."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Learn from n rows.

        Args:
            X: ``(n, n_features)``, n at least 1, finite, within about [0, 1].
            y: ``(n,)``, finite, in any unit.

        Raises:
            InputError: Shapes that do not match, no rows, or a number that is not finite.
        """
        ...

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and standard deviation, each ``(n,)``, in the unit of ``y``.

        Raises:
            InputError: ``X`` has other features than the rows it was fitted on, or there was no
                fit.
        """
        ...


def check_rows(features: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the rows to learn from as float arrays, or raise InputError."""
    rows = np.asarray(features, dtype=np.float64)
    values = np.asarray(targets, dtype=np.float64)
    if rows.ndim != 2 or values.shape != rows.shape[:1]:
        raise InputError(
            f"features of shape {rows.shape} and targets of shape {values.shape} do not match; "
            "(n, n_features) and (n,) are needed"
        )
    if not len(values):
        raise InputError("there is nothing to learn from: give at least one row")
    for what, array in (("features", rows), ("targets", values)):
        if not np.isfinite(array).all():
            position = np.argwhere(~np.isfinite(array))[0].tolist()
            raise InputError(
                f"{what} hold {array[tuple(position)]} at {position}; leave out rows without a "
                "finite value"
            )
    return rows, values
