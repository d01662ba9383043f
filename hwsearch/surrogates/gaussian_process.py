"""Gaussian process regression with a kernel made for architectures."""

from collections.abc import Callable
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize

from hwsearch.errors import InputError
from hwsearch.surrogates.base import (
    BoolArray,
    FloatArray,
    check_features,
    check_noise,
    check_rows,
)

# Hyperparameters, as logarithms, for standardised targets: variance of the size term, of the
# linear term and of the smooth term, length scale of the smooth term, variance of the noise.
_PRIOR_MEAN: Final = np.log([1.0, 0.3, 0.1, 0.5, 0.01])
_PRIOR_DEVIATION: Final = np.array([1.5, 1.0, 1.5, 0.7, 1.5])
_BOUNDS: Final = [(-9.0, 5.0), (-9.0, 5.0), (-9.0, 5.0), (-3.0, 2.0), (-9.0, 0.0)]
_CONSTANT_VARIANCE: Final = 4.0
_MAX_ITERATIONS: Final = 30
# The likelihood costs the cube of the rows, and so many of them settle five numbers.
_MAX_LIKELIHOOD_ROWS: Final = 128


class GaussianProcess:
    """Constant + size + linear + smooth (squared exponential), each with a variance of its own.

    The *size* term is one gain shared by all columns marked as steps, so that a handful of rows
    already says what growing an architecture brings; the *linear* term gives every column a gain
    of its own around it; the *smooth* term takes interactions. Hyperparameters maximise the
    marginal likelihood times a weak log-normal prior (Rasmussen and Williams, 2006, chapter 5),
    by L-BFGS with a fixed start and bounded effort. Deterministic.

    Args:
        steps: ``(n_features,)``, which columns count steps upward and share the size term; none
            by default.
    """

    def __init__(self, steps: BoolArray | None = None) -> None:
        self.steps = steps

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learn from n rows; see `Surrogate.fit`.

        Targets that are all equal are predicted everywhere, with a deviation of 1% of their size.
        """
        return self.fit_from(X, y, _PRIOR_MEAN, noise)

    def fit_from(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        start: FloatArray,
        noise: ArrayLike | None = None,
    ) -> Self:
        """Do what `fit` does, starting from the ``hyperparameters_`` of a similar fit."""
        rows, values = check_rows(X, y)
        known = check_noise(noise, len(values))
        self.rows_ = rows
        self.center_ = rows.mean(axis=0)
        self.mean_ = float(values.mean())
        spread = float(values.std())
        self.constant_ = spread <= 1e-12 * max(abs(self.mean_), 1e-300)
        self.scale_ = 0.01 * (abs(self.mean_) or 1.0) if self.constant_ else spread
        targets = np.zeros(len(values)) if self.constant_ else (values - self.mean_) / spread
        variances = (known / self.scale_) ** 2
        self._learn_hyperparameters(targets, variances, start)
        size, linear, distance = self._grams(rows, rows)
        kernel = self._kernel(size, linear, distance)
        kernel[np.diag_indices_from(kernel)] += np.exp(self.hyperparameters_[4]) + variances
        self.factor_ = cholesky(kernel, lower=True, check_finite=False)
        self.weights_ = cho_solve((self.factor_, True), targets, check_finite=False)
        return self

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation of the noiseless value; see `Surrogate.predict`."""
        if not hasattr(self, "rows_"):
            raise InputError("this model has not been fitted; call fit first")
        rows = check_features(X, self.rows_.shape[1])
        kernel = self._kernel(*self._grams(rows, self.rows_))
        mean: FloatArray = kernel @ self.weights_ * self.scale_ + self.mean_
        explained = solve_triangular(self.factor_, kernel.T, lower=True, check_finite=False)
        variance = self._variance(rows) - np.einsum("ij,ij->j", explained, explained)
        deviation: FloatArray = np.sqrt(np.maximum(variance, 1e-12)) * self.scale_
        return mean, deviation

    def _learn_hyperparameters(
        self, targets: FloatArray, variances: FloatArray, start: FloatArray
    ) -> None:
        n_rows = min(len(targets), _MAX_LIKELIHOOD_ROWS)
        chosen = np.linspace(0, len(targets) - 1, n_rows).astype(int)
        rows = self.rows_[chosen]
        found = minimize(
            _objective(*self._grams(rows, rows), targets[chosen], variances[chosen]),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS,
            options={"maxiter": _MAX_ITERATIONS, "ftol": 1e-4},
        )
        self.hyperparameters_: FloatArray = found.x
        self.n_likelihood_rows_ = n_rows
        self.log_likelihood_ = -float(found.fun) - n_rows * float(np.log(self.scale_))

    def _grams(self, a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Size and linear inner products and mean squared distances, each (len(a), len(b)).

        Scaled such that architectures drawn at random have a variance near 1 in each.
        """
        n_features = max(a.shape[1], 1)
        a, b = a - self.center_, b - self.center_
        size = 12.0 * np.outer(self._size(a), self._size(b))
        inner = a @ b.T
        squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :]
        distance = np.maximum(squares - 2.0 * inner, 0.0) / n_features
        return size, inner * (4.0 / n_features), distance

    def _size(self, centred: FloatArray) -> FloatArray:
        if self.steps is None or not self.steps.any():
            return np.zeros(len(centred))
        size: FloatArray = centred[:, self.steps].mean(axis=1)
        return size

    def _kernel(self, size: FloatArray, linear: FloatArray, distance: FloatArray) -> FloatArray:
        of_size, of_linear, of_smooth, length, _ = np.exp(self.hyperparameters_)
        smooth = of_smooth * np.exp(distance / (-2.0 * length**2))
        kernel: FloatArray = of_size * size + of_linear * linear + smooth + _CONSTANT_VARIANCE
        return kernel

    def _variance(self, rows: FloatArray) -> FloatArray:
        """Prior variance of every row: the diagonal of its kernel with itself."""
        of_size, of_linear, of_smooth, _, _ = np.exp(self.hyperparameters_)
        centred = rows - self.center_
        linear = (centred * centred).sum(axis=1) * (4.0 / max(rows.shape[1], 1))
        size = of_size * 12.0 * self._size(centred) ** 2
        variance: FloatArray = size + of_linear * linear + of_smooth + _CONSTANT_VARIANCE
        return variance


def _objective(
    size: FloatArray,
    linear: FloatArray,
    distance: FloatArray,
    targets: FloatArray,
    known: FloatArray,
) -> Callable[[FloatArray], tuple[float, FloatArray]]:
    """Negative log posterior of the hyperparameters, with its gradient.

    ``known`` are variances of the targets, added to the noise's.
    """

    def evaluate(logs: FloatArray) -> tuple[float, FloatArray]:
        of_size, of_linear, of_smooth, length, noise = np.exp(logs)
        smooth = of_smooth * np.exp(distance / (-2.0 * length**2))
        kernel = of_size * size + of_linear * linear + smooth + _CONSTANT_VARIANCE
        factor = cholesky(kernel + np.diag(noise + known), lower=True, check_finite=False)
        weights = cho_solve((factor, True), targets, check_finite=False)
        lower, _ = lapack.dpotri(factor, lower=1)  # the inverse, without the half above
        inverse = lower + np.tril(lower, -1).T
        slope = inverse - np.outer(weights, weights)
        gradient = 0.5 * np.array(
            [
                of_size * np.vdot(slope, size),
                of_linear * np.vdot(slope, linear),
                np.vdot(slope, smooth),
                np.vdot(slope, smooth * distance) / length**2,
                noise * np.trace(slope),
            ]
        )
        off = (logs - _PRIOR_MEAN) / _PRIOR_DEVIATION
        value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        return float(value), gradient + off / _PRIOR_DEVIATION

    return evaluate
