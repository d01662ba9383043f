"""What is measured as a multiple of a known approximation, with a learned correction."""

from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

from hwsearch.errors import InputError
from hwsearch.space import Architectures, SearchSpace
from hwsearch.surrogates.base import FloatArray, check_rows
from hwsearch.surrogates.predictor import encode_steps

# Standard deviations, as natural logarithms of numbers: of the factor that all share, of what size
# adds to it, of what all choices together add, and of the noise.
_PRIOR_MEAN: Final = np.log([0.1, 0.03, 0.02, 0.01])
_PRIOR_DEVIATION: Final = np.array([1.0, 1.0, 1.0, 1.0])
_BOUNDS: Final = [(-9.0, 3.0), (-9.0, 3.0), (-9.0, 3.0), (-9.0, 1.0)]
_CHUNK: Final = 8192
# The likelihood costs the cube of the rows, and so many of them settle four numbers.
_MAX_LIKELIHOOD_ROWS: Final = 128


class RatioModel:
    """Bayesian linear regression of the log ratio of positive values to an approximation.

    Features are a constant, the logarithm of the approximation, and the masked steps of the
    encoding, each group with a variance of its own. The variances and the noise's maximise the
    marginal likelihood times a weak log-normal prior, by L-BFGS with a fixed start; with few rows
    they stay near the prior, and the model near the approximation. Deterministic.

    Args:
        space: The search space that all architectures come from.

    Attributes:
        weights_: (2 + n_columns,) of the constant, the logarithm and the encoding.
        centres_: (2 + n_columns,) subtracted from the features; 0 for the constant.
        covariance_: Of the weights.
        noise_: Standard deviation of what the features do not explain, as a log ratio.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def fit(self, archs: Architectures, values: ArrayLike, approximation: ArrayLike) -> Self:
        """Learn from n architectures.

        Args:
            archs: n of them, at least 1.
            values: (n,), positive.
            approximation: (n,), positive, in the same unit or another.

        Raises:
            InputError: Architectures of another space, lengths that differ, or a number that is
                not positive and finite.
        """
        self.space.check_own(archs)
        logs = np.log(check_positive("approximation", approximation, len(archs)))
        targets = np.log(check_positive("value", values, len(archs))) - logs
        features, targets = check_rows(self._features(archs, logs), targets)
        self.centres_ = np.append(0.0, features[:, 1:].mean(axis=0))
        features -= self.centres_
        variances = self._variances(features, targets)
        self.noise_ = float(np.sqrt(variances[-1]))
        prior = np.empty(features.shape[1])
        for group, variance in zip(self._groups(features), variances[:-1], strict=True):
            prior[group] = variance
        scaled = features * prior
        kernel = scaled @ features.T + variances[-1] * np.eye(len(targets))
        factor = (cholesky(kernel, lower=True), True)
        self.weights_: FloatArray = scaled.T @ cho_solve(factor, targets)
        self.covariance_: FloatArray = np.diag(prior) - scaled.T @ cho_solve(factor, scaled)
        return self

    def predict(
        self, archs: Architectures, approximation: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Return median and standard deviation, each (n,), in the unit of the values.

        The deviation is that of a value to be measured: what the features do not explain is part
        of it.

        Args:
            archs: n architectures.
            approximation: (n,), positive, in the unit that it was fitted in.

        Raises:
            InputError: As for `fit`, or there was no fit.
        """
        base = check_positive("approximation", approximation, len(archs))
        deviation = self.log_deviation(archs, base)
        centred = self._features(archs, np.log(base)) - self.centres_
        mean: FloatArray = base * np.exp(centred @ self.weights_)
        return mean, mean * deviation

    def log_deviation(self, archs: Architectures, approximation: ArrayLike) -> FloatArray:
        """Return the standard deviation of the logarithm of a value to be measured: (n,).

        Raises:
            InputError: As for `predict`.
        """
        self.check_fitted()
        self.space.check_own(archs)
        logs = np.log(check_positive("approximation", approximation, len(archs)))
        variance = np.empty(len(archs))
        for start in range(0, len(archs), _CHUNK):
            part = slice(start, start + _CHUNK)
            centred = self._features(archs[part], logs[part]) - self.centres_
            variance[part] = np.einsum("ij,ij->i", centred @ self.covariance_, centred)
        deviation: FloatArray = np.sqrt(np.maximum(variance, 0.0) + self.noise_**2)
        return deviation

    def check_fitted(self) -> None:
        """Raise InputError where nothing was learnt yet."""
        if not hasattr(self, "weights_"):
            raise InputError("this model has not been fitted; call fit first")

    def _variances(self, features: FloatArray, targets: FloatArray) -> FloatArray:
        """The most likely variances of the groups and of the noise."""
        n_rows = min(len(targets), _MAX_LIKELIHOOD_ROWS)
        chosen = np.linspace(0, len(targets) - 1, n_rows).astype(int)
        rows = features[chosen]
        grams = [rows[:, group] @ rows[:, group].T for group in self._groups(features)]
        found = minimize(
            _negative_log_posterior,
            _PRIOR_MEAN,
            args=(grams, targets[chosen]),
            method="L-BFGS-B",
            bounds=_BOUNDS,
        )
        variances: FloatArray = np.exp(2.0 * found.x)
        return variances

    def _features(self, archs: Architectures, logs: FloatArray) -> FloatArray:
        steps = encode_steps(archs) * step_scale(self.space)
        features: FloatArray = np.column_stack([np.ones(len(archs)), logs, steps])
        return features

    def _groups(self, features: FloatArray) -> tuple[slice, slice, slice]:
        return slice(0, 1), slice(1, 2), slice(2, features.shape[1])


def step_scale(space: SearchSpace) -> float:
    """What columns of the encoding are multiplied by: all together vary by about 1."""
    return 2.0 / float(np.sqrt(max(encode_steps(space.smallest()).shape[1], 1)))


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


def _negative_log_posterior(
    logs: FloatArray, grams: list[FloatArray], targets: FloatArray
) -> float:
    variances = np.exp(2.0 * logs)
    kernel = variances[-1] * np.eye(len(targets))
    for variance, gram in zip(variances[:-1], grams, strict=True):
        kernel += variance * gram
    factor = cholesky(kernel, lower=True, check_finite=False)
    weights = cho_solve((factor, True), targets, check_finite=False)
    off = (logs - _PRIOR_MEAN) / _PRIOR_DEVIATION
    value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    return float(value)
