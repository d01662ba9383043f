"""Approximations of measured objectives: calibrated, and dropped where measurements disagree."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.errors import InputError
from hwsearch.objectives import FloatArray, Objective
from hwsearch.space import Architectures

LEAST_TOLD: Final = 8  # values before predictions are judged
_RECENT: Final = 16
_LEAST_JUDGED: Final = 8
_LEAST_COVERED: Final = 0.6  # of 95% intervals; noise alone brings it to about 0.8
_NORMAL_95: Final = 1.96


class ScaledApproximation:
    """Predicts an objective as a learned multiple of its approximation, both positive."""

    def __init__(
        self,
        approximation: Callable[[Architectures], ArrayLike],
        archs: Architectures,
        values: FloatArray,
        noise: FloatArray | None = None,
    ) -> None:
        from hwsearch.prediction.log_ratio import LogRatioModel

        self._approximation = approximation
        self._model = LogRatioModel(archs.space).fit(archs, values, approximation(archs), noise)

    def predict(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return medians and deviations of values to be measured, each (n,)."""
        return self._model.predict(archs, self._approximation(archs))

    def predict_mean(self, archs: Architectures) -> FloatArray:
        """Return the medians alone, (n,)."""
        return self._model.predict_mean(archs, self._approximation(archs))


class ApproximationCheck:
    """Check of one objective's approximation; ``given_up`` is why it is not used, else empty."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._covered: list[bool] = []
        self.given_up = ""

    def fit_predictor(
        self, archs: Architectures, values: FloatArray, noise: FloatArray | None = None
    ) -> ScaledApproximation | None:
        """Return a predictor fitted to measured values; None without a usable approximation."""
        if self.given_up or self._objective.approximation is None:
            return None
        try:
            return ScaledApproximation(self._objective.approximation, archs, values, noise)
        except InputError as error:
            self.given_up = f"{self._objective.name} is predicted from measured values: {error}"
            return None

    def judge(
        self, told: Architectures, values: FloatArray, new: Architectures, measured: FloatArray
    ) -> None:
        """Compare ``new`` architectures' values with predictions from the ones told before.

        The approximation is given up when too many recent values lie outside their 95% intervals.
        """
        if len(told) < LEAST_TOLD or not len(new) or not (measured > 0).all():
            return
        predictor = self.fit_predictor(told, values)
        if predictor is None:
            return
        mean, deviation = predictor.predict(new)
        inside = np.abs(np.log(measured / mean)) <= _NORMAL_95 * deviation / mean
        self._covered = [*self._covered, *inside.tolist()][-_RECENT:]
        n, n_covered = len(self._covered), sum(self._covered)
        if n >= _LEAST_JUDGED and n_covered < _LEAST_COVERED * n:
            self.given_up = (
                f"{n - n_covered} of the last {n} values of {self._objective.name} lay outside "
                "the 95% intervals predicted for them: the predictor was refitted without its "
                "approximation, from measured values alone"
            )
