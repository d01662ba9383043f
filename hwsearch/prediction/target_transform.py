"""Target transforms: the identity, or the logarithm of the distance from a limit."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsearch.prediction.base import FloatArray, mean_and_scale

_MARGINS: Final = (0.25, 1.0)  # of the limit beyond the outermost target, in ranges of targets


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
