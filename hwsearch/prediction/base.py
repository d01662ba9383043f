"""Protocols of surrogates (regression models with uncertainty), and checks of their input."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError

if TYPE_CHECKING:
    from typing import Self  # Python 3.10, on which a kit may run, has none

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Surrogate(Protocol):
    """A regression model with uncertainty; `fit` replaces an earlier fit."""

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit n rows.

        Args:
            X: ``(n, n_features)``, n at least 1, finite, within about [0, 1].
            y: ``(n,)``, finite, in any unit.
            noise: ``(n,)``, known standard deviations of the targets, in their unit; they are
                added to the noise that is learnt. 0 by default.

        Raises:
            InputError: Shapes differ, there are no rows, or a number is not finite.
        """

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and standard deviation, each ``(n,)``, in the unit of ``y``.

        Raises:
            InputError: ``X`` has other features than the fitted rows, or there was no fit.
        """

    def cross_validate(
        self, rows: FloatArray, values: FloatArray, noise: FloatArray, fold: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Predict all values from the rows of other folds: mean and deviation, noise included.

        ``fold`` has a number for every row. Transforms and variances may come from all rows, so
        that a fold costs little.
        """


def refit_folds(
    model: Any, rows: FloatArray, values: FloatArray, noise: FloatArray, fold: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Implement `Surrogate.cross_validate` by a fit and refits.

    The model's ``refit`` takes rows, values and noise, and returns a new model of them with the
    transform and the variances of this one.
    """
    fitted = copy(model).fit(rows, values, noise)
    mean, deviation = np.empty(len(values)), np.empty(len(values))
    for number in np.unique(fold):
        out = fold == number
        refitted = fitted.refit(rows[~out], values[~out], noise[~out])
        mean[out], true_deviation = refitted.predict(rows[out])
        deviation[out] = np.hypot(true_deviation, noise[out])
    return mean, deviation


class Parametric(Surrogate, Protocol):
    """A surrogate that consists of arrays and keeps no row that it was fitted on."""

    def widen(self, factor: float) -> None:
        """Multiply all deviations by a factor above 0, until the next fit."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all parameters by name; raise InputError before a fit."""

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model of a state; raise InputError for a missing or invalid array."""


def check_fitted(model: object, learnt: str) -> None:
    """Raise InputError where a model lacks an attribute that `fit` sets."""
    if not hasattr(model, learnt):
        raise InputError("this model has not been fitted; call fit first")


def check_features(features: ArrayLike, n_features: int) -> FloatArray:
    """Return features as a float array (n, n_features), or raise InputError."""
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != n_features:
        raise InputError(
            f"features of shape {rows.shape} cannot be predicted; "
            f"(n, {n_features}) is what the model was fitted on"
        )
    return rows


def take_array(state: Mapping[str, NDArray[Any]], name: str, n_axes: int) -> FloatArray:
    """Return an array of a state as finite floats with n axes, or raise InputError."""
    if name not in state:
        raise InputError(f"{name!r} is missing among {', '.join(map(repr, state)) or 'nothing'}")
    array = state[name]
    if array.dtype.kind not in "fiu" or array.ndim != n_axes or not np.isfinite(array).all():
        raise InputError(
            f"{name!r} is of type {array.dtype} and shape {array.shape}; it must hold finite "
            f"numbers along {n_axes} axes"
        )
    return array.astype(np.float64)


def check_rows(
    features: ArrayLike, targets: ArrayLike, noise: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return rows to learn from, targets and noise as float arrays, or raise InputError."""
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
    if noise is None:
        return rows, values, np.zeros(len(values))
    deviations = np.asarray(noise, dtype=np.float64)
    if deviations.shape != values.shape:
        raise InputError(
            f"noise of shape {deviations.shape} does not fit {len(values)} targets; give one "
            "standard deviation for each"
        )
    wrong = ~(np.isfinite(deviations) & (deviations >= 0))
    if wrong.any():
        raise InputError(
            f"noise {deviations[wrong][0]} of target {int(np.flatnonzero(wrong)[0])} is no "
            "standard deviation; give finite numbers from 0 up"
        )
    return rows, values, deviations


def mean_and_scale(targets: FloatArray) -> tuple[float, float]:
    """Return the mean of targets and their spread, or 1% of their size where all are equal."""
    mean, spread = float(targets.mean()), float(targets.std())
    equal = spread <= 1e-12 * max(abs(mean), 1e-300)
    return mean, 0.01 * (abs(mean) or 1.0) if equal else spread
