"""Gaussian process regression with a kernel for encoded architectures."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky, solve_triangular

from hwsearch.prediction.base import (
    FloatArray,
    check_features,
    check_fitted,
    check_rows,
    mean_and_scale,
)
from hwsearch.prediction.bayesian_regression import LogNormalPrior, evenly_spaced, most_likely
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
        self.rows_ = rows[evenly_spaced(len(rows), _MAX_ROWS)]
        self.center_ = self.rows_.mean(axis=0)
        self.priors_ = self.priors or independent_prior(self.rows_.shape[1], _INDEPENDENT)
        self._prior = LogNormalPrior(
            logs=np.array([*(prior.log_factor for prior in self.priors_), *_PRIOR_MEAN]),
            deviations=np.array(
                [*(prior.log_deviation for prior in self.priors_), *_PRIOR_DEVIATION]
            ),
            bounds=[_FACTOR_BOUNDS] * len(self.priors_) + _BOUNDS,
        )
        few = self.rows_[evenly_spaced(len(self.rows_), _MAX_LIKELIHOOD_ROWS)] - self.center_
        self._grams = np.array([few @ prior.covariance @ few.T for prior in self.priors_])
        self._distances = _distances(few, few)
        self._set_targets(values, known)
        return self

    def with_targets(self, values: FloatArray, noise: FloatArray) -> Self:
        """Return a process of the same n rows with other targets; call `learn` next."""
        other = copy(self)
        other._set_targets(values, noise)
        return other

    def _set_targets(self, values: FloatArray, noise: FloatArray) -> None:
        chosen = evenly_spaced(len(values), _MAX_ROWS)
        values, noise = values[chosen], noise[chosen]
        self.mean_, self.scale_ = mean_and_scale(values)
        self._targets = (values - self.mean_) / self.scale_
        self._variances = (noise / self.scale_) ** 2
        self.hyperparameters_ = self._prior.logs

    def learn(self, start: FloatArray | None = None, max_iterations: int = 30) -> float:
        """Choose the hyperparameters, from a start, and return the logarithm of their likelihood.

        It is that of up to 96 rows, evenly spaced, in the unit of the targets. ``start`` holds the
        hyperparameters of a similar fit.
        """
        chosen = evenly_spaced(len(self._targets), _MAX_LIKELIHOOD_ROWS)
        self.hyperparameters_, likelihood = most_likely(
            self._kernel_of,
            self._targets[chosen],
            self._prior,
            self._prior.logs if start is None else start,
            maxiter=max_iterations,
            ftol=1e-4,
        )
        self.n_likelihood_rows_ = len(chosen)
        return likelihood - len(chosen) * float(np.log(self.scale_))

    def _kernel_of(
        self, logs: FloatArray
    ) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        """Return the kernel between the rows of `learn`, and the gradient by its slope."""
        factors, (of_smooth, length, noise) = np.exp(logs[:-3]), np.exp(logs[-3:])
        chosen = evenly_spaced(len(self._targets), _MAX_LIKELIHOOD_ROWS)
        smooth = of_smooth * np.exp(self._distances * (-0.5 / length**2))
        kernel = np.tensordot(factors, self._grams, axes=1) + smooth
        kernel += _CONSTANT_VARIANCE
        kernel[np.diag_indices_from(kernel)] += noise + self._variances[chosen]

        def gradient(slope: FloatArray) -> FloatArray:
            of_length = np.vdot(slope, smooth * self._distances) / length**2
            rest = [np.vdot(slope, smooth), of_length, noise * np.trace(slope)]
            return np.concatenate([factors * np.tensordot(self._grams, slope, axes=2), rest])

        return kernel, gradient

    def condition(self) -> Self:
        """Condition on the rows, with the hyperparameters as they are."""
        factors = np.exp(self.hyperparameters_[: len(self.priors_)])
        self._covariance: FloatArray = sum(
            factor * prior.covariance for factor, prior in zip(factors, self.priors_, strict=True)
        )
        self._known = self.rows_ - self.center_
        kernel = self._kernel(self._known)
        kernel[np.diag_indices_from(kernel)] += np.exp(self.hyperparameters_[-1]) + self._variances
        self.factor_ = cholesky(kernel, lower=True, check_finite=False)
        self.weights_ = cho_solve((self.factor_, True), self._targets, check_finite=False)
        self._linear_weights = self._covariance @ (self._known.T @ self.weights_)
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
        centred = self._centred(X)
        mean: FloatArray = self._smooth(centred) @ self.weights_ + centred @ self._linear_weights
        mean += _CONSTANT_VARIANCE * self.weights_.sum()
        return mean * self.scale_ + self.mean_

    def _centred(self, features: ArrayLike) -> FloatArray:
        check_fitted(self, "weights_")
        centred: FloatArray = check_features(features, self.rows_.shape[1]) - self.center_
        return centred

    def _kernel(self, centred: FloatArray) -> FloatArray:
        """Return the kernel between given rows and the fitted ones: (len(centred), n)."""
        linear: FloatArray = centred @ self._covariance @ self._known.T
        return linear + self._smooth(centred) + _CONSTANT_VARIANCE

    def _smooth(self, centred: FloatArray) -> FloatArray:
        """Return the squared exponential term of the kernel."""
        of_smooth, length, _ = np.exp(self.hyperparameters_[-3:])
        smooth = _distances(centred, self._known)
        smooth *= -0.5 / length**2
        np.exp(smooth, out=smooth)
        smooth *= of_smooth
        return smooth


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return mean squared distances over the features, (len(a), len(b))."""
    distances: FloatArray = a @ (-2.0 * b.T)
    distances += np.einsum("ij,ij->i", a, a)[:, np.newaxis]
    distances += np.einsum("ij,ij->i", b, b)
    np.maximum(distances, 0.0, out=distances)
    distances /= max(a.shape[1], 1)
    return distances
