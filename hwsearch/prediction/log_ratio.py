"""Bayesian linear regression of the log ratio of measured values to an approximation."""

from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.encoding import thermometer
from hwsearch.errors import InputError
from hwsearch.prediction.base import FloatArray, check_fitted, check_rows
from hwsearch.prediction.bayesian_regression import (
    MAX_LIKELIHOOD_ROWS,
    LogNormalPrior,
    evenly_spaced,
    most_likely_deviations,
    weight_posterior,
)
from hwsearch.space import Architectures, SearchSpace

# Logarithms of standard deviations: of the common factor, the weight of size, all choices
# together, and the residuals.
_PRIOR: Final = LogNormalPrior(
    logs=np.log([0.1, 0.03, 0.02, 0.01]),
    deviations=np.ones(4),
    bounds=[(-9.0, 3.0), (-9.0, 3.0), (-9.0, 3.0), (-9.0, 1.0)],
)
_GROUPS: Final = (slice(0, 1), slice(1, 2), slice(2, None))
_CHUNK: Final = 8192


class LogRatioModel:
    """Bayesian linear regression of the log ratio of positive values to an approximation.

    Features are a constant, the logarithm of the approximation, and the thermometer encoding, each
    group with a variance of its own. With few rows the variances stay near
    their prior, and predictions near the approximation. Deterministic.

    Attributes:
        weights_: (2 + n_columns,) of the constant, the logarithm and the encoding.
        centres_: (2 + n_columns,) subtracted from the features; 0 for the constant.
        noise_: Standard deviation of the residuals, as a log ratio.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def fit(
        self,
        archs: Architectures,
        values: ArrayLike,
        approximation: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> Self:
        """Fit n positive values (n,) to their approximation (n,), in the same unit or another.

        Raises:
            InputError: Architectures of another space, lengths that differ, or a number that is
                not positive and finite.
        """
        self.space.check_own(archs)
        logs = np.log(check_positive("approximation", approximation, len(archs)))
        positive = check_positive("value", values, len(archs))
        targets = np.log(positive) - logs
        features, targets, known = check_rows(self._features(archs, logs), targets, noise)
        self.centres_ = np.append(0.0, features[:, 1:].mean(axis=0))
        centred = features - self.centres_
        known = known / positive
        chosen = evenly_spaced(len(targets), MAX_LIKELIHOOD_ROWS)
        grams = [centred[chosen, group] @ centred[chosen, group].T for group in _GROUPS]
        (*spread, self.noise_), _ = most_likely_deviations(
            np.array(grams), targets[chosen], known[chosen], _PRIOR
        )
        root = np.diag(np.repeat(spread, [1, 1, features.shape[1] - 2]))
        self.weights_, self.covariance_ = weight_posterior(
            centred, targets, np.hypot(known, self.noise_), root
        )
        return self

    def predict(
        self, archs: Architectures, approximation: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Return median and standard deviation (residuals included) of measured values."""
        mean = self.predict_mean(archs, approximation)
        return mean, mean * self.log_deviation(archs, approximation)

    def predict_mean(self, archs: Architectures, approximation: ArrayLike) -> FloatArray:
        """Return the medians alone, (n,)."""
        check_fitted(self, "weights_")
        self.space.check_own(archs)
        base = check_positive("approximation", approximation, len(archs))
        centred = self._features(archs, np.log(base)) - self.centres_
        mean: FloatArray = base * np.exp(centred @ self.weights_)
        return mean

    def log_deviation(self, archs: Architectures, approximation: ArrayLike) -> FloatArray:
        """Return the standard deviation of the logarithm of a value to be measured: (n,)."""
        check_fitted(self, "weights_")
        self.space.check_own(archs)
        logs = np.log(check_positive("approximation", approximation, len(archs)))
        variance = np.empty(len(archs))
        for start in range(0, len(archs), _CHUNK):
            part = slice(start, start + _CHUNK)
            centred = self._features(archs[part], logs[part]) - self.centres_
            variance[part] = np.einsum("ij,ij->i", centred @ self.covariance_, centred)
        deviation: FloatArray = np.sqrt(np.maximum(variance, 0.0) + self.noise_**2)
        return deviation

    def _features(self, archs: Architectures, logs: FloatArray) -> FloatArray:
        steps = thermometer(archs) * column_scale(self.space)
        features: FloatArray = np.column_stack([np.ones(len(archs)), logs, steps])
        return features


def column_scale(space: SearchSpace) -> float:
    """Return the factor of the encoding's columns by which their sum varies by about 1."""
    return 2.0 / float(np.sqrt(max(thermometer(space.smallest()).shape[1], 1)))


def check_positive(what: str, given: ArrayLike, n: int) -> FloatArray:
    """Return n positive, finite numbers as an array, or raise InputError."""
    array = np.asarray(given, dtype=np.float64)
    if array.shape != (n,):
        raise InputError(
            f"{what}s of shape {array.shape} do not fit {n} architectures; give one for each"
        )
    wrong = ~(np.isfinite(array) & (array > 0))
    if wrong.any():
        raise InputError(
            f"{what} {array[wrong][0]} of architecture {int(np.flatnonzero(wrong)[0])} is no "
            "positive number; leave out what could not be measured"
        )
    return array
