"""Prediction of an objective from architectures and a covariate of theirs."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.encoding import thermometer
from hwsearch.objectives import FloatArray
from hwsearch.prediction.gaussian_process import TransformedGaussianProcess
from hwsearch.prediction.log_ratio import check_positive
from hwsearch.prediction.prior_covariance import PriorCovariance, prior_covariances
from hwsearch.space import Architectures, SearchSpace

_LOG_DEVIATION: Final = 1.5  # of the factor of the covariate's variance, as of steps up


class CovariatePredictor:
    """Predicts an objective by a Gaussian process with the logarithm of a covariate as a feature.

    The weight of the logarithm has a wide prior of its own; the choices explain what it leaves.
    """

    def __init__(
        self,
        covariate: Callable[[Architectures], ArrayLike],
        archs: Architectures,
        values: FloatArray,
        noise: FloatArray | None = None,
    ) -> None:
        self._covariate = covariate
        logs = self._logs(archs)
        self._mean = float(logs.mean())
        self._scale = float(logs.std()) or 1.0
        priors = _with_covariate(archs.space)
        self._model = TransformedGaussianProcess(priors).fit(self._rows(archs), values, noise)

    def predict(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return medians and deviations, each (n,)."""
        return self._model.predict(self._rows(archs))

    def predict_mean(self, archs: Architectures) -> FloatArray:
        """Return the medians alone, (n,)."""
        return self._model.predict_mean(self._rows(archs))

    def _logs(self, archs: Architectures) -> FloatArray:
        logs: FloatArray = np.log(check_positive("covariate", self._covariate(archs), len(archs)))
        return logs

    def _rows(self, archs: Architectures) -> FloatArray:
        feature = (self._logs(archs) - self._mean) / self._scale
        return np.column_stack([thermometer(archs), feature])


def _with_covariate(space: SearchSpace) -> list[PriorCovariance]:
    """Return the priors of the columns, and that of the covariate's behind them."""
    terms = prior_covariances(space)
    n = thermometer(space.smallest()).shape[1]
    of_it = np.zeros((n + 1, n + 1))
    of_it[n, n] = 1.0
    widened = [
        PriorCovariance(np.pad(t.covariance, (0, 1)), t.log_factor, t.log_deviation) for t in terms
    ]
    return [*widened, PriorCovariance(of_it, 0.0, _LOG_DEVIATION)]
