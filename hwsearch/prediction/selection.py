"""Selection of a surrogate by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from hwsearch.prediction.base import FloatArray, check_rows
from hwsearch.prediction.bayesian_regression import evenly_spaced
from hwsearch.prediction.registry import GAUSSIAN_PROCESS, make_surrogate
from hwsearch.space import SearchSpace

FEW: Final[tuple[str, ...]] = (GAUSSIAN_PROCESS, "additive", "linear")
LEAST_TREE_ROWS: Final = 60
LEAST_PAIRWISE_ROWS: Final = 256  # enough to tell interactions
LEAST_ROWS: Final = 12
_MAX_ROWS: Final = 256
_FOLDS: Final = 5
_SAME_TAU: Final = 0.05
_NORMAL_95: Final = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateScore:
    """Agreement of a surrogate's predictions with values that it was not fitted to.

    Attributes:
        tau: Kendall's tau of predicted and known values; NaN where all are equal.
        log_likelihood: Mean log density of the known values.
        coverage: Share of values in their 95% intervals.
        rmse: Root of the mean squared error, in the unit of the values.
        mae: Mean absolute error.
    """

    name: str
    tau: float
    log_likelihood: float
    coverage: float
    rmse: float
    mae: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The selected surrogate, and the scores of all tried; no scores where rows were too few."""

    name: str
    scores: tuple[SurrogateScore, ...] = ()


def select_surrogate(
    X: ArrayLike,  # noqa: N803
    y: ArrayLike,
    space: SearchSpace,
    noise: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Selection:
    """Choose a surrogate by 5-fold cross-validation; errors as for `Surrogate.fit`.

    Of the surrogates whose mean log likelihood is within one standard error (of the differences,
    row by row) of the highest, the first is chosen whose tau is within 0.05 of the highest. With
    fewer than 12 rows, or values that are all equal, it is the first of all. Of more than 256
    rows, 256 evenly spaced ones are used. Deterministic.

    Args:
        X: ``(n, n_features)``, as `thermometer` encodes architectures.
        y: ``(n,)``.
        space: Of the architectures.
        noise: ``(n,)``, known standard deviations of the values.
        names: Of the surrogates to try; by default the Gaussian process, the additive and the
            linear one, from 60 rows on trees (where XGBoost is installed), and from 256 rows on
            the pairwise one.
    """
    rows, values, known = check_rows(X, y, noise)
    tried = list(names or FEW)
    if not names and len(values) >= LEAST_PAIRWISE_ROWS:
        tried.append("pairwise")
    if not names and len(values) >= LEAST_TREE_ROWS and find_spec("xgboost") is not None:
        tried.append("trees")
    chosen = evenly_spaced(len(values), _MAX_ROWS)
    rows, values, known = rows[chosen], values[chosen], known[chosen]
    if len(values) < LEAST_ROWS or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Selection(name=tried[0])
    fold = np.random.default_rng(0).permutation(len(values)) % _FOLDS
    scores, densities = [], []
    for name in tried:
        surrogate = make_surrogate(name, space)
        mean, deviation = surrogate.cross_validate(rows, values, known, fold)
        scores.append(score_predictions(name, values, mean, deviation))
        densities.append(_log_densities(values, mean, deviation))
    likelihoods = np.array(densities)
    behind = likelihoods[np.argmax(likelihoods.mean(axis=1))] - likelihoods
    error = behind.std(axis=1) / np.sqrt(len(values))
    close = np.flatnonzero(behind.mean(axis=1) <= error)
    highest = max(scores[position].tau for position in close)
    best = next(position for position in close if scores[position].tau >= highest - _SAME_TAU)
    return Selection(name=tried[best], scores=tuple(scores))


def score_predictions(
    name: str, values: FloatArray, mean: FloatArray, deviation: FloatArray
) -> SurrogateScore:
    """Score predictions of values, each ``(n,)``."""
    off = np.abs(values - mean)
    return SurrogateScore(
        name=name,
        tau=float(kendalltau(mean, values).statistic),
        log_likelihood=float(_log_densities(values, mean, deviation).mean()),
        coverage=float((off <= _NORMAL_95 * deviation).mean()),
        rmse=float(np.sqrt((off**2).mean())),
        mae=float(off.mean()),
    )


def _log_densities(values: FloatArray, mean: FloatArray, deviation: FloatArray) -> FloatArray:
    off = (values - mean) / deviation
    densities: FloatArray = -0.5 * off**2 - np.log(deviation) - 0.5 * np.log(2.0 * np.pi)
    return densities
