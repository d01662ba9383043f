"""Gaussian process regression with a kernel for encoded architectures."""

from collections.abc import Callable, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from hwsearch.prediction.base import FloatArray, check_features, check_fitted, check_rows
from hwsearch.prediction.bayesian_regression import evenly_spaced, likelihood_slope
from hwsearch.prediction.prior_covariance import PriorCovariance, independent_prior

# Logarithms, for standardised targets: variance of the smooth term, its length scale, variance of
# the noise. The factors of the weights' priors come before them.
_PRIOR_MEAN: Final = np.log([0.1, 0.5, 0.01])
_PRIOR_DEVIATION: Final = np.array([1.5, 0.7, 1.5])
_BOUNDS: Final = [(-9.0, 5.0), (-3.0, 2.0), (-9.0, 0.0)]
_FACTOR_BOUNDS: Final = (-9.0, 6.0)
_INDEPENDENT: Final = float(np.log(0.3))  # the factor of the default prior
_CONSTANT_VARIANCE: Final = 4.0
# The likelihood costs the cube of the rows; this many determine a few hyperparameters.
_MAX_LIKELIHOOD_ROWS: Final = 96
_MAX_ROWS: Final = 1500


class GaussianProcess:
    """Gaussian process: constant + linear (weights with a prior) + squared exponential.

    The prior covariance of the linear weights is a sum of terms with a factor each
    (`prior_covariances`); the smooth term models interactions. Hyperparameters maximise the
    marginal likelihood times a weak log-normal prior (Rasmussen and Williams, 2006, chapter 5),
    by L-BFGS with a fixed start and bounded effort. Of more than 1,500 rows, evenly spaced ones
    are used. ``priors`` of the weights are independent by default. Deterministic.
    """

    def __init__(self, priors: Sequence[PriorCovariance] | None = None) -> None:
        self.priors = priors

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit n rows; see `Surrogate.fit`.

        Equal targets are predicted everywhere, with a deviation of 1% of their size.
        """
        self.prepare(X, y, noise)
        self.learn()
        return self.condition()

    def prepare(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Set n rows, hyperparameters at their prior means; call `learn` and `condition` next."""
        rows, values, known = check_rows(X, y, noise)
        chosen = evenly_spaced(len(values), _MAX_ROWS)
        self.rows_, values, known = rows[chosen], values[chosen], known[chosen]
        self.center_ = self.rows_.mean(axis=0)
        self.priors_ = self.priors or independent_prior(self.rows_.shape[1], _INDEPENDENT)
        self.mean_, spread = float(values.mean()), float(values.std())
        self.constant_ = spread <= 1e-12 * max(abs(self.mean_), 1e-300)
        self.scale_ = 0.01 * (abs(self.mean_) or 1.0) if self.constant_ else spread
        self._targets = np.zeros(len(values)) if self.constant_ else (values - self.mean_) / spread
        self._variances = (known / self.scale_) ** 2
        self._prior = (
            np.array([*(prior.log_factor for prior in self.priors_), *_PRIOR_MEAN]),
            np.array([*(prior.log_deviation for prior in self.priors_), *_PRIOR_DEVIATION]),
        )
        self.hyperparameters_ = self._prior[0]
        return self

    def learn(self, start: FloatArray | None = None, max_iterations: int = 30) -> float:
        """Choose the hyperparameters, from a start, and return the logarithm of their likelihood.

        It is that of up to 96 rows, evenly spaced, in the unit of the targets. ``start`` holds the
        hyperparameters of a similar fit; they are kept where ``max_iterations`` is 0.
        """
        chosen = evenly_spaced(len(self._targets), _MAX_LIKELIHOOD_ROWS)
        centred = self.rows_[chosen] - self.center_
        linear = [centred @ prior.covariance @ centred.T for prior in self.priors_]
        loss = _objective(
            linear,
            _distances(centred, centred),
            self._targets[chosen],
            self._variances[chosen],
            self._prior,
        )
        self.hyperparameters_ = self._prior[0] if start is None else start
        value = loss(self.hyperparameters_)[0]
        if max_iterations:
            bounds = [_FACTOR_BOUNDS] * len(self.priors_) + _BOUNDS
            options = {"maxiter": max_iterations, "ftol": 1e-4}
            found = minimize(
                loss,
                self.hyperparameters_,
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options=options,
            )
            self.hyperparameters_, value = found.x, float(found.fun)
        self.n_likelihood_rows_ = len(chosen)
        return -value - len(chosen) * float(np.log(self.scale_))

    def condition(self) -> Self:
        """Condition on the rows, with the hyperparameters as they are."""
        factors = np.exp(self.hyperparameters_[: len(self.priors_)])
        self._covariance: FloatArray = sum(
            factor * prior.covariance for factor, prior in zip(factors, self.priors_, strict=True)
        )
        self._known = self.rows_ - self.center_
        self._projected = self._covariance @ self._known.T
        kernel = self._kernel(self._known)
        kernel[np.diag_indices_from(kernel)] += np.exp(self.hyperparameters_[-1]) + self._variances
        self.factor_ = cholesky(kernel, lower=True, check_finite=False)
        self.weights_ = cho_solve((self.factor_, True), self._targets, check_finite=False)
        return self

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation of the noiseless value; see `Surrogate.predict`."""
        centred = self._centred(X)
        kernel = self._kernel(centred)
        mean: FloatArray = kernel @ self.weights_ * self.scale_ + self.mean_
        explained = solve_triangular(self.factor_, kernel.T, lower=True, check_finite=False)
        linear = np.einsum("ij,ij->i", centred @ self._covariance, centred)
        prior = linear + np.exp(self.hyperparameters_[-3]) + _CONSTANT_VARIANCE
        variance = prior - np.einsum("ij,ij->j", explained, explained)
        deviation: FloatArray = np.sqrt(np.maximum(variance, 1e-12)) * self.scale_
        return mean, deviation

    def predict_mean(self, X: ArrayLike) -> FloatArray:  # noqa: N803
        """Return the means alone, in a fraction of the time."""
        mean: FloatArray = self._kernel(self._centred(X)) @ self.weights_
        return mean * self.scale_ + self.mean_

    def _centred(self, features: ArrayLike) -> FloatArray:
        check_fitted(self, "weights_")
        centred: FloatArray = check_features(features, self.rows_.shape[1]) - self.center_
        return centred

    def _kernel(self, centred: FloatArray) -> FloatArray:
        """Return the kernel between given rows and the fitted ones: (len(centred), n)."""
        of_smooth, length, _ = np.exp(self.hyperparameters_[-3:])
        distance = _distances(centred, self._known)
        smooth = of_smooth * np.exp(distance / (-2.0 * length**2))
        kernel: FloatArray = centred @ self._projected + smooth + _CONSTANT_VARIANCE
        return kernel


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return mean squared distances over the features, (len(a), len(b))."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :]
    distances: FloatArray = np.maximum(squares - 2.0 * (a @ b.T), 0.0) / max(a.shape[1], 1)
    return distances


def _objective(
    linear: Sequence[FloatArray],
    distance: FloatArray,
    targets: FloatArray,
    variances: FloatArray,
    prior: tuple[FloatArray, FloatArray],
) -> Callable[[FloatArray], tuple[float, FloatArray]]:
    """Return the negative log posterior of the hyperparameters, with its gradient."""
    flat = np.array([gram.ravel() for gram in linear]).reshape(len(linear), -1)
    diagonal = np.diag_indices(len(targets))

    def evaluate(logs: FloatArray) -> tuple[float, FloatArray]:
        factors, (of_smooth, length, noise) = np.exp(logs[:-3]), np.exp(logs[-3:])
        smooth = of_smooth * np.exp(distance / (-2.0 * length**2))
        kernel = (factors @ flat).reshape(distance.shape) + smooth + _CONSTANT_VARIANCE
        kernel[diagonal] += noise + variances
        factor = cholesky(kernel, lower=True, check_finite=False)
        weights = cho_solve((factor, True), targets, check_finite=False)
        slope = likelihood_slope(factor, weights)
        of_length = np.vdot(slope, smooth * distance) / length**2
        rest = [np.vdot(slope, smooth), of_length, noise * np.trace(slope)]
        gradient = 0.5 * np.concatenate([factors * (flat @ slope.ravel()), rest])
        off = (logs - prior[0]) / prior[1]
        value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        return float(value), gradient + off / prior[1]

    return evaluate
