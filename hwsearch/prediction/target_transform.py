"""Target transforms, and a Gaussian process on the most likely one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve

from hwsearch.prediction.base import (
    FloatArray,
    IntArray,
    check_fitted,
    check_rows,
    mean_and_scale,
)
from hwsearch.prediction.gaussian_process import GaussianProcess
from hwsearch.prediction.prior_covariance import PriorCovariance

_MARGINS: Final = (0.25, 1.0)  # of the limit beyond the outermost target, in ranges of targets
_FEW_ITERATIONS: Final = 4  # enough to compare transforms


@dataclass(frozen=True, slots=True)
class TargetTransform:
    """The identity (side 0), or the negative logarithm of the distance from a limit.

    Attributes:
        side: 1 for an upper limit, which accuracies approach; -1 for a lower one.
        limit: In the unit of the targets.
        span: Unit of the distance.
    """

    side: int = 0
    limit: float = 0.0
    span: float = 1.0

    def forward(self, y: FloatArray) -> FloatArray:
        """Return transformed targets; they rise with the targets."""
        if not self.side:
            return y
        transformed: FloatArray = -self.side * np.log(self.side * (self.limit - y) / self.span)
        return transformed

    def forward_deviation(self, y: FloatArray, deviation: FloatArray) -> FloatArray:
        """Return the transformed standard deviations of targets ``y``, to first order."""
        return deviation / np.abs(self.limit - y) if self.side else deviation

    def backward(self, mean: FloatArray, deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return transformed means and deviations in the unit of the targets, to first order."""
        if not self.side:
            return mean, deviation
        distance = self.span * np.exp(np.clip(-self.side * mean, -30.0, 30.0))
        return self.limit - self.side * distance, distance * deviation

    def standardised(
        self, y: FloatArray, noise: FloatArray
    ) -> tuple[FloatArray, FloatArray, float, float]:
        """Return transformed targets and deviations, both in a scale and less a mean, and these.

        The scale is the targets' spread, or 1% of their size where all are equal.
        """
        transformed = self.forward(y)
        mean, scale = mean_and_scale(transformed)
        return (
            (transformed - mean) / scale,
            self.forward_deviation(y, noise) / scale,
            mean,
            scale,
        )

    def log_slope(self, y: FloatArray) -> float:
        """Return the sum of the log derivatives: the change of variables of a log likelihood."""
        return -float(np.log(np.abs(self.limit - y)).sum()) if self.side else 0.0


def candidate_transforms(values: FloatArray) -> list[TargetTransform]:
    """Return the identity and, where values are not all equal, upper and lower limits to try."""
    low, high = float(values.min()), float(values.max())
    span = high - low
    if span <= 1e-12 * max(abs(low), abs(high)):
        return [TargetTransform()]
    upper = [TargetTransform(1, high + margin * span, span) for margin in _MARGINS]
    lower = [TargetTransform(-1, low - margin * span, span) for margin in _MARGINS]
    return [TargetTransform(), *upper, *lower]


class TransformedGaussianProcess:
    """A `GaussianProcess` of transformed targets.

    The effect of a choice shrinks as an architecture nears the best that its supernet reaches, so
    effects add up on ``-log(limit - y)`` rather than on ``y``; costs may do the opposite. The
    transform with the highest marginal likelihood, change of variables included, is used
    (Snelson, Rasmussen and Ghahramani, Warped Gaussian processes, 2003). Predicted means are
    medians of ``y``.
    """

    def __init__(self, priors: Sequence[PriorCovariance] | None = None) -> None:
        self.priors = priors

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit n rows; see `Surrogate.fit`."""
        rows, values, known = check_rows(X, y, noise)
        self.transform_, *others = candidate_transforms(values)
        self.process_ = GaussianProcess(self.priors).prepare(rows, values, known)
        best = self.process_.learn()
        start = self.process_.hyperparameters_
        for transform in others:
            deviations = transform.forward_deviation(values, known)
            process = self.process_.with_targets(transform.forward(values), deviations)
            likelihood = process.learn(start, _FEW_ITERATIONS)
            # The likelihood is that of a part of the rows where there are many.
            likelihood += process.n_likelihood_rows_ / len(values) * transform.log_slope(values)
            if likelihood > best:
                self.transform_, self.process_, best = transform, process, likelihood
        if self.transform_.side:
            self.process_.learn(self.process_.hyperparameters_)
        self.process_.condition()
        return self

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation of the noiseless value; see `Surrogate.predict`."""
        check_fitted(self, "process_")
        return self.transform_.backward(*self.process_.predict(X))

    def predict_mean(self, X: ArrayLike) -> FloatArray:  # noqa: N803
        """Return the means alone, in a fraction of the time; errors as for `predict`."""
        check_fitted(self, "process_")
        mean = self.process_.predict_mean(X)
        return self.transform_.backward(mean, np.zeros_like(mean))[0]

    def cross_validate(
        self, rows: FloatArray, values: FloatArray, noise: FloatArray, fold: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Predict left-out rows in closed form; see `Surrogate.cross_validate`.

        Rasmussen and Williams, 2006, section 5.4.2, for several rows at a time.
        """
        fitted = type(self)(self.priors).fit(rows, values, noise)
        process, transform = fitted.process_, fitted.transform_
        targets = (transform.forward(values) - process.mean_) / process.scale_
        inverse = cho_solve((process.factor_, True), np.eye(len(values)))
        mean, deviation = np.empty(len(values)), np.empty(len(values))
        for number in np.unique(fold):
            out = np.flatnonzero(fold == number)
            covariance = np.linalg.inv(inverse[np.ix_(out, out)])
            mean[out] = targets[out] - covariance @ process.weights_[out]
            deviation[out] = np.sqrt(np.diag(covariance))
        mean, deviation = mean * process.scale_ + process.mean_, deviation * process.scale_
        return transform.backward(mean, deviation)
