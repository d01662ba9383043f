"""Regression on the scale on which the targets add up best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve

from hwsearch.prediction.base import FloatArray, IntArray, check_noise, check_rows
from hwsearch.prediction.gaussian_process import GaussianProcess
from hwsearch.prediction.prior_covariance import GainPrior

_MARGINS: Final = (0.25, 1.0)  # of the limit beyond the outermost target, in ranges of targets
_FEW_ITERATIONS: Final = 4  # tell which scale is the most likely one


@dataclass(frozen=True, slots=True)
class Scale:
    """The targets as they are (side 0), or the log of their distance from a limit.

    Side 1 is a ceiling that gains shrink toward, as accuracy has; side -1 a floor.
    """

    side: int = 0
    limit: float = 0.0
    span: float = 1.0

    def forward(self, y: FloatArray) -> FloatArray:
        """Return targets on this scale."""
        if not self.side:
            return y
        scaled: FloatArray = -self.side * np.log(self.side * (self.limit - y) / self.span)
        return scaled

    def forward_deviation(self, y: FloatArray, deviation: FloatArray) -> FloatArray:
        """What a small deviation of ``y`` is on this scale."""
        return deviation / np.abs(self.limit - y) if self.side else deviation

    def backward(self, mean: FloatArray, deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and deviation, both of this scale, in the unit of the targets."""
        if not self.side:
            return mean, deviation
        distance = self.span * np.exp(np.clip(-self.side * mean, -30.0, 30.0))
        return self.limit - self.side * distance, distance * deviation

    def log_slope(self, y: FloatArray) -> float:
        """Sum of the log derivatives: what the change of scale adds to a log likelihood."""
        return -float(np.log(np.abs(self.limit - y)).sum()) if self.side else 0.0


class SaturatingProcess:
    """A `GaussianProcess` on the most likely of a few scales.

    What a step up of one choice brings shrinks as an architecture nears what its supernet can
    reach, so gains add up on ``-log(ceiling - y)`` rather than on ``y``; costs may do the
    opposite. Tried are the plain scale, ceilings and floors; the marginal likelihood, with the
    change of variables, decides (Snelson, Rasmussen and Ghahramani, Warped Gaussian processes,
    2003). Mean and deviation are those of the scale, carried back to first order: the mean is the
    median of ``y``.

    Args:
        gains: As for `GaussianProcess`.
    """

    def __init__(self, gains: Sequence[GainPrior] | None = None) -> None:
        self.gains = gains

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learn from n rows; see `Surrogate.fit`."""
        rows, values = check_rows(X, y)
        known = check_noise(noise, len(values))
        self.scale_ = Scale()
        self.process_ = GaussianProcess(self.gains).prepare(rows, values, known)
        best = -np.inf if self.process_.constant_ else self.process_.learn()
        start = self.process_.hyperparameters_
        for scale in likely_scales(values) if not self.process_.constant_ else ():
            deviations = scale.forward_deviation(values, known)
            process = GaussianProcess(self.gains)
            process.prepare(rows, scale.forward(values), deviations)
            likelihood = process.learn(start, _FEW_ITERATIONS)
            # The likelihood is that of a part of the rows where there are many.
            likelihood += process.n_likelihood_rows_ / len(values) * scale.log_slope(values)
            if likelihood > best:
                self.scale_, self.process_, best = scale, process, likelihood
        if self.scale_.side:
            self.process_.learn(self.process_.hyperparameters_)
        self.process_.condition()
        return self

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation of the noiseless value; see `Surrogate.predict`."""
        process, scale = self._fitted
        return scale.backward(*process.predict(X))

    def predict_mean(self, X: ArrayLike) -> FloatArray:  # noqa: N803
        """Return the means alone, which takes a fraction of the time; errors as for `predict`."""
        process, scale = self._fitted
        mean = process.predict_mean(X)
        return scale.backward(mean, np.zeros_like(mean))[0]

    def cross_validate(
        self, rows: FloatArray, values: FloatArray, noise: FloatArray, fold: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Predict rows that were left out; see `Surrogate.cross_validate`.

        In closed form (Rasmussen and Williams, 2006, section 5.4.2, for several rows at a time).
        """
        process, scale = type(self)(self.gains).fit(rows, values, noise)._fitted
        targets = (scale.forward(values) - process.mean_) / process.scale_
        inverse = cho_solve((process.factor_, True), np.eye(len(values)))
        mean, deviation = np.empty(len(values)), np.empty(len(values))
        for number in np.unique(fold):
            out = np.flatnonzero(fold == number)
            covariance = np.linalg.inv(inverse[np.ix_(out, out)])
            mean[out] = targets[out] - covariance @ process.weights_[out]
            deviation[out] = np.sqrt(np.diag(covariance))
        return scale.backward(mean * process.scale_ + process.mean_, deviation * process.scale_)

    @property
    def _fitted(self) -> tuple[GaussianProcess, Scale]:
        return getattr(self, "process_", GaussianProcess(self.gains)), getattr(
            self, "scale_", Scale()
        )


def likely_scales(values: FloatArray) -> list[Scale]:
    """Ceilings and floors to try beside the plain scale, for values that are not all equal."""
    low, high = float(values.min()), float(values.max())
    span = high - low
    ceilings = [Scale(1, high + margin * span, span) for margin in _MARGINS]
    floors = [Scale(-1, low - margin * span, span) for margin in _MARGINS]
    return ceilings + floors
