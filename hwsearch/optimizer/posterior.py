"""Predictions of all objectives by surrogates that are fitted to the history."""

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from hwsearch.encoding import thermometer
from hwsearch.objectives import FloatArray
from hwsearch.optimizer.approximations import ScaledApproximation
from hwsearch.optimizer.covariates import CovariatePredictor
from hwsearch.optimizer.history import History
from hwsearch.prediction.gaussian_process import GaussianProcess
from hwsearch.prediction.predictor import Predictor
from hwsearch.prediction.prior_covariance import prior_covariances
from hwsearch.prediction.registry import GAUSSIAN_PROCESS
from hwsearch.prediction.selection import LEAST_ROWS, Selection, select_surrogate
from hwsearch.space import Architectures

_LEAST_SUCCESS: Final = 0.05  # where all failed so far, a large gain is still worth a try
_GROWTH: Final = 1.5  # factor of the number of values between two comparisons of surrogates


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Predicted and exact values ``(n, n_objectives)``; deviations are 0 in exact columns.

    ``success``, ``(n,)``, is the probability that an evaluation does not fail.
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
            if objective.computed is None
        }
        self._success: GaussianProcess | None = None
        if not succeeded.all():
            outcomes = succeeded.astype(np.float64)
            self._success = GaussianProcess(prior_covariances(history.space))
            self._success.fit(thermometer(history.told), outcomes)

    def _fitted(
        self, column: int, archs: Architectures, values: FloatArray, noise: FloatArray
    ) -> Predictor | ScaledApproximation | CovariatePredictor:
        check = self._history.approximations.get(column)
        scaled = check.fit_predictor(archs, values, noise) if check is not None else None
        if scaled is not None:
            return scaled
        covariate = self._history.objectives[column].covariate
        if covariate is not None:
            return CovariatePredictor(covariate, archs, values, noise)
        selection = surrogate_selection(self._history, column)
        name = selection.name if selection else GAUSSIAN_PROCESS
        return Predictor(self._history.space, name).fit(archs, values, noise)

    def losses(self, archs: Architectures) -> tuple[FloatArray, FloatArray | None]:
        """Predict losses, and violations if there are constraints, by the means alone."""
        mean = self._history.exact(archs)
        for column, predictor in self._predictors.items():
            mean[:, column] = predictor.predict_mean(archs)
        return self._history.judged(mean)

    def forecast(self, archs: Architectures) -> Forecast:
        """Compute the exact objectives and predict the measured ones."""
        mean = self._history.exact(archs)
        deviation = np.zeros_like(mean)
        for column, predictor in self._predictors.items():
            mean[:, column], deviation[:, column] = predictor.predict(archs)
        success = np.ones(len(archs))
        if self._success is not None:
            rate, _ = self._success.predict(thermometer(archs))
            success = rate.clip(_LEAST_SUCCESS, 1.0)
        return Forecast(mean=mean, deviation=deviation, success=success)


def posterior_values(history: History, posterior: Posterior) -> FloatArray:
    """Return the told values ``(len(told), n_objectives)``, estimates at their posterior means.

    The posterior weighs an estimate by its deviation, so that the highest of many noisy ones does
    not count as the best. A failed row is all NaN.
    """
    values = history.values.copy()
    rows = np.flatnonzero((history.deviations > 0).any(axis=1))
    if len(rows):
        estimated = history.deviations[rows] > 0
        mean = posterior.forecast(history.told[rows]).mean
        values[rows] = np.where(estimated, mean, values[rows])
    return values


def surrogate_selection(history: History, column: int) -> Selection | None:
    """Return an objective's surrogate, chosen by cross-validation; None before 12 values.

    It is chosen after 12, 18, 27, ... values, from those values alone, as they were first told,
    and kept in the history.
    """
    rows = np.flatnonzero(history.succeeded)
    rows = rows[: _n_compared(len(rows))]
    if not len(rows):
        return None
    if (column, len(rows)) not in history.selections:
        history.selections[column, len(rows)] = select_surrogate(
            thermometer(history.told[rows]),
            history.first_values[rows, column],
            history.space,
            history.deviations[rows, column],
        )
    return history.selections[column, len(rows)]


def _n_compared(n_values: int) -> int:
    """Return the last of 12, 18, 27, ... that is at most ``n_values``; 0 before the first."""
    reached, following = 0, LEAST_ROWS
    while following <= n_values:
        reached, following = following, ceil(following * _GROWTH)
    return reached
