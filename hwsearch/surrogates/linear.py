"""Bayesian linear regression on the scale on which the targets add up best."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError
from hwsearch.surrogates.base import (
    BoolArray,
    FloatArray,
    check_features,
    check_noise,
    check_rows,
    take_array,
)
from hwsearch.surrogates.grouped import Prior, fit_groups
from hwsearch.surrogates.saturating import Scale, likely_scales

# Standard deviations for standardised targets, as logarithms: of the constant, of what size
# brings, of what all steps bring besides, of all other columns, and of what is not explained.
_LOGS: Final = np.log([2.0, 1.0, 0.5, 0.5, 0.1])
_DEVIATIONS: Final = np.array([1.0, 0.75, 0.5, 0.5, 0.75])
_BOUNDS: Final = [(float(_LOGS[0]),) * 2, *[(-4.5, 2.5)] * 3, (-4.5, 0.0)]
_RANK: Final = 32  # directions in which weights vary together that predictions keep


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """A normal distribution of weights on one scale of the targets.

    Attributes:
        scale: On which the targets are linear.
        deviations: The variances that it was learnt with, as `fit_groups` returns them.
        mean: (1 + n_features,) of the constant and every column.
        covariance: Of the same.
        center: (n_features,), means of the columns.
        unexplained: Standard deviation of what the columns do not explain.
        likelihood: Logarithm, of the targets themselves, so that scales can be compared.
    """

    scale: Scale
    deviations: FloatArray
    mean: FloatArray
    covariance: FloatArray
    center: FloatArray
    unexplained: float
    likelihood: float


class LinearModel:
    """A gain for every column, shrunk toward one that all columns marked as steps share.

    Gains add up on the most likely of a few scales; see `SaturatingProcess`. The variances of the
    shared gain, of the steps' own and the other columns' gains and of the rest maximise the
    marginal likelihood; see `fit_groups`. Deterministic.

    The deviation is that of the true value: what the columns do not explain is part of it, since
    interactions cannot be told from noise; known noise is not. Of the posterior covariance the 32
    largest directions are kept, and of the rest the variances.

    Args:
        steps: ``(n_features,)``, which columns count steps upward; none by default.

    Attributes:
        columns_: (1 + n_features, n_outputs), what the constant and every column add to the sums
            that `from_sums` takes.
    """

    def __init__(self, steps: BoolArray | None = None) -> None:
        self.steps = steps

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learn from n rows; see `Surrogate.fit`.

        Targets that are all equal are predicted everywhere, with a deviation of 1% of their size.
        """
        rows, values = check_rows(X, y)
        known = check_noise(noise, len(values))
        scales = [Scale()]
        if np.ptp(values) > 1e-12 * np.abs(values).max():
            scales += likely_scales(values)
        fits = [self._weights(scale, rows, values, known) for scale in scales]
        self._keep(max(fits, key=lambda weights: weights.likelihood))
        return self

    def refit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Return a new model of other rows that takes the scale and the variances of this one.

        Raises:
            InputError: As for `fit`, or there was none.
        """
        self._check_fitted()
        rows, values = check_rows(X, y)
        known = check_noise(noise, len(values))
        other = type(self)(self.steps)
        other._keep(self._weights(self.scale_, rows, values, known, self.deviations_))
        return other

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation; see `Surrogate.predict`."""
        self._check_fitted()
        rows = check_features(X, len(self.columns_) - 1)
        return self.from_sums(rows @ self.columns_[1:] + self.columns_[0])

    def from_sums(self, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and deviation, each (n,), from sums over ``columns_``: (n, n_outputs)."""
        return self.scale_.backward(sums[:, 0], self.scale_deviation(sums))

    def scale_deviation(self, sums: FloatArray) -> FloatArray:
        """Return the deviation on the scale, (n,), from sums over ``columns_``."""
        directions = sums[:, 2:]
        variance = np.maximum(sums[:, 1], 0.0) + np.einsum("ij,ij->i", directions, directions)
        deviation: FloatArray = np.sqrt(variance + self.unexplained_**2)
        return deviation

    def mean_from_sums(self, sums: FloatArray) -> FloatArray:
        """Return means (n,) from the first of the sums: (n,)."""
        return self.scale_.backward(sums, np.zeros(len(sums)))[0]

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Return all parameters by name.

        Raises:
            InputError: There was no fit.
        """
        self._check_fitted()
        scale = self.scale_
        return {
            "columns": self.columns_,
            "unexplained": np.array(self.unexplained_),
            "scale": np.array([scale.side, scale.limit, scale.span]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model that gave a state.

        Raises:
            InputError: An array is absent, has another shape, or holds what it cannot hold.
        """
        model = cls()
        model.columns_ = take_array(state, "columns", 2)
        model.unexplained_ = float(take_array(state, "unexplained", 0))
        scale = take_array(state, "scale", 1)
        if model.columns_.shape[0] < 1 or model.columns_.shape[1] < 2:
            raise InputError(f"'columns' have shape {model.columns_.shape}; at least (1, 2)")
        if scale.shape != (3,) or scale[0] not in (-1.0, 0.0, 1.0) or scale[2] <= 0:
            raise InputError(f"'scale' is {scale.tolist()}; side -1, 0 or 1, limit, span above 0")
        if model.unexplained_ < 0:
            raise InputError(f"'unexplained' is {model.unexplained_}; a number from 0 up")
        model.scale_ = Scale(int(scale[0]), float(scale[1]), float(scale[2]))
        return model

    def _weights(
        self,
        scale: Scale,
        rows: FloatArray,
        values: FloatArray,
        known: FloatArray,
        deviations: FloatArray | None = None,
    ) -> Weights:
        scaled = scale.forward(values)
        mean, spread = float(scaled.mean()), float(scaled.std())
        if spread <= 1e-12 * abs(mean) or not spread:
            spread = 0.01 * (abs(mean) or 1.0)
        steps = np.zeros(rows.shape[1], bool) if self.steps is None else self.steps
        center = rows.mean(axis=0)
        mixing = mixing_of(center, steps)
        places = np.arange(len(steps)) + 2
        groups = (slice(0, 1), slice(1, 2), places[steps], places[~steps])
        fitted = fit_groups(
            rows @ mixing[1:] + mixing[0],
            (scaled - mean) / spread,
            scale.forward_deviation(values, known) / spread,
            Prior(groups=groups, logs=_LOGS, deviations=_DEVIATIONS, bounds=_BOUNDS),
            deviations,
        )
        weights = mixing @ fitted.weights * spread
        weights[0] += mean
        # The likelihood is that of a part of the rows where there are many.
        n_rows = fitted.n_likelihood_rows
        slope = scale.log_slope(values) * n_rows / len(values)
        return Weights(
            scale=scale,
            deviations=fitted.deviations,
            mean=weights,
            covariance=mixing @ fitted.covariance @ mixing.T * spread**2,
            center=center,
            unexplained=fitted.unexplained * spread,
            likelihood=fitted.log_likelihood - n_rows * float(np.log(spread)) + slope,
        )

    def _keep(self, weights: Weights) -> None:
        self.scale_ = weights.scale
        self.deviations_ = weights.deviations
        self.unexplained_ = weights.unexplained
        self.columns_ = self._columns(weights)

    def _columns(self, weights: Weights) -> FloatArray:
        return columns_of(weights.mean, weights.covariance, weights.center)

    def _check_fitted(self) -> None:
        if not hasattr(self, "columns_"):
            raise InputError("this model has not been fitted; call fit first")


def columns_of(mean: FloatArray, covariance: FloatArray, center: FloatArray) -> FloatArray:
    """Return what a constant of 1 and every column add to mean, variance and directions.

    Args:
        mean: (1 + n_features,) of the weights.
        covariance: (1 + n_features, 1 + n_features) of the weights; its largest directions are
            kept, and of the rest the variances of the weights of columns less their center.
        center: (n_features,), means of the columns.
    """
    shift = np.eye(len(mean))
    shift[0, 1:] = center  # from weights of columns to those of columns less their center
    sizes, directions = np.linalg.eigh(shift @ covariance @ shift.T)
    kept = directions[:, -_RANK:] * np.sqrt(np.maximum(sizes[-_RANK:], 0.0))
    dropped = directions[:, :-_RANK] ** 2 @ np.maximum(sizes[:-_RANK], 0.0)
    # (x - c)^2 is linear in an x of 0 or 1.
    rest = dropped * np.append(1.0, 1.0 - 2.0 * center)
    rest[0] += dropped[1:] @ center**2
    kept[0] -= center @ kept[1:]
    columns: FloatArray = np.column_stack([mean, rest, kept])
    return columns


def mixing_of(center: FloatArray, steps: BoolArray) -> FloatArray:
    """Return what a constant of 1 and every column add to the features: (1 + n, 2 + n).

    The features are the constant, size (the mean of the steps) and the columns; scaled such that
    architectures drawn at random have a variance near 1 in size and in all columns together.
    """
    n = len(center)
    by_column = np.zeros((n, 2 + n))
    by_column[steps, 1] = np.sqrt(12.0) / max(int(steps.sum()), 1)
    by_column[np.arange(n), np.arange(n) + 2] = 2.0 / np.sqrt(max(n, 1))
    constant = -center @ by_column
    constant[0] = 1.0
    mixing: FloatArray = np.concatenate([constant[np.newaxis], by_column])
    return mixing
