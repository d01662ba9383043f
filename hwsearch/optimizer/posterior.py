"""What the told values say about architectures that were not evaluated."""

from dataclasses import dataclass

import numpy as np

from hwsearch.objectives import FloatArray
from hwsearch.optimizer.approximations import Scaled
from hwsearch.optimizer.history import History
from hwsearch.space import Architectures
from hwsearch.surrogates.gaussian_process import GaussianProcess
from hwsearch.surrogates.kinship import kin_gains
from hwsearch.surrogates.predictor import Predictor
from hwsearch.surrogates.steps import encode_steps

_LEAST_CHANCE = 0.05  # a region that only failed so far stays worth a try for a large gain


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Values of n architectures, as far as they are known.

    Attributes:
        mean: ``(n, n_objectives)`` in the objectives' units.
        deviation: The same shape; 0 in the exact columns.
        success: ``(n,)``, the chance that an evaluation does not fail.
    """

    mean: FloatArray
    deviation: FloatArray
    success: FloatArray


class Posterior:
    """Surrogates of the measured objectives, fitted to a history with at least one success."""

    def __init__(self, history: History) -> None:
        self._history = history
        succeeded = history.succeeded
        known = history.told[succeeded]
        self._predictors = {
            column: self._fitted(
                column,
                known,
                history.values[succeeded, column],
                history.deviations[succeeded, column],
            )
            for column, objective in enumerate(history.objectives)
            if objective.exact is None
        }
        self._success: GaussianProcess | None = None
        if not succeeded.all():
            outcomes = succeeded.astype(np.float64)
            self._success = GaussianProcess(kin_gains(history.space))
            self._success.fit(encode_steps(history.told), outcomes)

    def _fitted(
        self, column: int, archs: Architectures, values: FloatArray, noise: FloatArray
    ) -> Predictor | Scaled:
        trust = self._history.trusts.get(column)
        scaled = trust.fitted(archs, values, noise) if trust is not None else None
        return scaled or Predictor(self._history.space).fit(archs, values, noise)

    def losses(self, archs: Architectures) -> tuple[FloatArray, FloatArray | None]:
        """Predict losses ``(n, n_objectives)`` and violations ``(n,)``, None without constraints.

        Means alone, which takes a fraction of the time that `forecast` does.
        """
        mean = self._history.exact(archs)
        for column, predictor in self._predictors.items():
            mean[:, column] = predictor.predict_mean(archs)
        return self._history.judged(mean)

    def forecast(self, archs: Architectures) -> Forecast:
        """Compute what is exact and predict what is measured."""
        mean = self._history.exact(archs)
        deviation = np.zeros_like(mean)
        for column, predictor in self._predictors.items():
            mean[:, column], deviation[:, column] = predictor.predict(archs)
        success = np.ones(len(archs))
        if self._success is not None:
            rate, _ = self._success.predict(encode_steps(archs))
            success = rate.clip(_LEAST_CHANCE, 1.0)
        return Forecast(mean=mean, deviation=deviation, success=success)
