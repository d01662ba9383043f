"""Gaussian process regression with a kernel for encoded architectures."""

from collections.abc import Callable, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky, solve_triangular

from hwsearch.prediction.base import (
    FloatArray,
    IntArray,
    check_features,
    check_fitted,
    check_rows,
)
from hwsearch.prediction.bayesian_regression import (
    KernelOf,
    LogNormalPrior,
    evenly_spaced,
    most_likely,
)
from hwsearch.prediction.prior_covariance import PriorCovariance, independent_prior
from hwsearch.prediction.target_transform import TargetTransform, candidate_transforms

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
_ITERATIONS: Final = 30
_FEW_ITERATIONS: Final = 4  # enough to compare transforms


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
        rows, values, known = check_rows(X, y, noise)
        kept = evenly_spaced(len(values), _MAX_ROWS)
        rows, values, known = rows[kept], values[kept], known[kept]
        self.center_ = rows.mean(axis=0)
        self._known = rows - self.center_
        self.priors_ = self.priors or independent_prior(rows.shape[1], _INDEPENDENT)
        self._learn(values, known)
        self._condition(values, known)
        return self

    def _learn(self, values: FloatArray, known: FloatArray) -> None:
        """Choose the transform and the hyperparameters, by up to 96 rows, evenly spaced."""
        few = evenly_spaced(len(values), _MAX_LIKELIHOOD_ROWS)
        rows, prior = self._known[few], _hyperprior(self.priors_)
        grams = np.array([rows @ each.covariance @ rows.T for each in self.priors_])
        distances = _distances(rows, rows)

        def learnt(
            transform: TargetTransform, start: FloatArray, iterations: int
        ) -> tuple[FloatArray, float]:
            targets, noise, _, scale = transform.standardised(values, known)
            kernel_of = _kernel_of(grams, distances, noise[few] ** 2)
            logs, likelihood = most_likely(
                kernel_of, targets[few], prior, start, maxiter=iterations, ftol=1e-4
            )
            slope = transform.log_slope(values) / len(values) - float(np.log(scale))
            return logs, likelihood + len(few) * slope

        self.transform_, *others = self._transforms(values)
        start, best = learnt(self.transform_, prior.logs, _ITERATIONS)
        self.hyperparameters_ = start
        for transform in others:
            logs, likelihood = learnt(transform, start, _FEW_ITERATIONS)
            if likelihood > best:
                self.transform_, self.hyperparameters_, best = transform, logs, likelihood
        if self.transform_.side:
            self.hyperparameters_, _ = learnt(self.transform_, self.hyperparameters_, _ITERATIONS)

    @staticmethod
    def _transforms(values: FloatArray) -> list[TargetTransform]:
        """Return the transforms to try, the identity first."""
        del values
        return [TargetTransform()]

    def _condition(self, values: FloatArray, known: FloatArray) -> None:
        targets, noise, self.mean_, self.scale_ = self.transform_.standardised(values, known)
        factors = np.exp(self.hyperparameters_[: len(self.priors_)])
        self._covariance: FloatArray = sum(
            factor * prior.covariance for factor, prior in zip(factors, self.priors_, strict=True)
        )
        kernel = self._kernel(self._known)
        np.einsum("ii->i", kernel)[:] += np.exp(self.hyperparameters_[-1]) + noise**2
        self.factor_ = cholesky(kernel, lower=True, check_finite=False)
        self.weights_ = cho_solve((self.factor_, True), targets, check_finite=False)
        self._linear_weights = self._covariance @ (self._known.T @ self.weights_)

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
        return self.transform_.backward(mean, deviation)

    def predict_mean(self, X: ArrayLike) -> FloatArray:  # noqa: N803
        """Return the means alone, in a fraction of the time; errors as for `predict`."""
        centred = self._centred(X)
        mean: FloatArray = self._smooth(centred) @ self.weights_ + centred @ self._linear_weights
        mean += _CONSTANT_VARIANCE * self.weights_.sum()
        return self.transform_.backward(mean * self.scale_ + self.mean_, np.zeros_like(mean))[0]

    def cross_validate(
        self, rows: FloatArray, values: FloatArray, noise: FloatArray, fold: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Predict left-out rows in closed form; see `Surrogate.cross_validate`.

        Rasmussen and Williams, 2006, section 5.4.2, for several rows at a time.
        """
        fitted = type(self)(self.priors).fit(rows, values, noise)
        targets = fitted.transform_.standardised(values, noise)[0]
        inverse = cho_solve((fitted.factor_, True), np.eye(len(values)))
        mean, deviation = np.empty(len(values)), np.empty(len(values))
        for number in np.unique(fold):
            out = np.flatnonzero(fold == number)
            covariance = np.linalg.inv(inverse[np.ix_(out, out)])
            mean[out] = targets[out] - covariance @ fitted.weights_[out]
            deviation[out] = np.sqrt(np.diag(covariance))
        mean, deviation = mean * fitted.scale_ + fitted.mean_, deviation * fitted.scale_
        return fitted.transform_.backward(mean, deviation)

    def _centred(self, features: ArrayLike) -> FloatArray:
        check_fitted(self, "weights_")
        centred: FloatArray = check_features(features, len(self.center_)) - self.center_
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


class TransformedGaussianProcess(GaussianProcess):
    """A `GaussianProcess` of transformed targets.

    The effect of a choice shrinks as an architecture nears the best that its supernet reaches, so
    effects add up on ``-log(limit - y)`` rather than on ``y``; costs may do the opposite. The
    transform with the highest marginal likelihood, change of variables included, is used
    (Snelson, Rasmussen and Ghahramani, Warped Gaussian processes, 2003). Predicted means are
    medians of ``y``.
    """

    _transforms = staticmethod(candidate_transforms)


def _hyperprior(priors: Sequence[PriorCovariance]) -> LogNormalPrior:
    factors = [prior.log_factor for prior in priors]
    spreads = [prior.log_deviation for prior in priors]
    return LogNormalPrior(
        logs=np.array([*factors, *_PRIOR_MEAN]),
        deviations=np.array([*spreads, *_PRIOR_DEVIATION]),
        bounds=[_FACTOR_BOUNDS] * len(priors) + _BOUNDS,
    )


def _kernel_of(grams: FloatArray, distances: FloatArray, variances: FloatArray) -> KernelOf:
    """Return the kernel of n rows by the logarithms of hyperparameters, with its gradient."""

    def kernel_of(logs: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        factors, (of_smooth, length, noise) = np.exp(logs[:-3]), np.exp(logs[-3:])
        smooth = of_smooth * np.exp(distances * (-0.5 / length**2))
        kernel = np.tensordot(factors, grams, axes=1) + smooth
        kernel += _CONSTANT_VARIANCE
        np.einsum("ii->i", kernel)[:] += noise + variances

        def gradient(slope: FloatArray) -> FloatArray:
            of_length = np.vdot(slope, smooth * distances) / length**2
            rest = [np.vdot(slope, smooth), of_length, noise * np.trace(slope)]
            return np.concatenate([factors * np.tensordot(grams, slope, axes=2), rest])

        return kernel, gradient

    return kernel_of


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return mean squared distances over the features, (len(a), len(b))."""
    distances: FloatArray = a @ (-2.0 * b.T)
    distances += np.einsum("ij,ij->i", a, a)[:, np.newaxis]
    distances += np.einsum("ij,ij->i", b, b)
    np.maximum(distances, 0.0, out=distances)
    distances /= max(a.shape[1], 1)
    return distances
