"""Which surrogate predicts best what it has not seen, by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve
from scipy.stats import kendalltau

from hwsearch.prediction.base import (
    BoolArray,
    FloatArray,
    Refittable,
    Surrogate,
    check_noise,
    check_rows,
)
from hwsearch.prediction.bayesian_regression import evenly
from hwsearch.prediction.registry import GAUSSIAN_PROCESS, make_surrogate
from hwsearch.prediction.target_transform import SaturatingProcess
from hwsearch.space import SearchSpace

FEW: Final = (GAUSSIAN_PROCESS, "additive", "linear")
MANY: Final = (*FEW, "pairwise")  # where there are rows enough to tell interactions
N_MANY: Final = 256
LEAST_ROWS: Final = 12
_MAX_ROWS: Final = 256
_FOLDS: Final = 5
_SAME_TAU: Final = 0.05
_NORMAL_95: Final = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well predictions of what a surrogate had not seen agree with it.

    Attributes:
        name: Of the surrogate.
        tau: Kendall's tau of predicted and known values; NaN where all are equal.
        log_likelihood: Mean logarithm of the density that it gave the known values.
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
    """The surrogate of choice, and what speaks for it.

    Attributes:
        name: Of the chosen one.
        scores: Of all that were tried, in their order; empty where rows were too few.
    """

    name: str
    scores: tuple[Score, ...] = ()


def select_surrogate(
    X: ArrayLike,  # noqa: N803
    y: ArrayLike,
    space: SearchSpace,
    noise: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Selection:
    """Choose a surrogate by 5-fold cross-validation.

    Scales and variances come from a fit to all rows, so that a fold costs next to nothing. Of the
    surrogates whose mean log likelihood is within one standard error (of the differences, row by
    row) of the highest, the first is chosen whose tau is within 0.05 of the highest; with fewer
    than 12 rows, or values that are all equal, the first of all. Of more than 256 rows, as many in
    even steps. Deterministic.

    Args:
        X: ``(n, n_features)``, as `encode_steps` encodes architectures.
        y: ``(n,)``.
        space: What they are of.
        noise: ``(n,)``, known standard deviations of the values.
        names: Of the surrogates to try; by default the Gaussian process, the additive and the
            linear one, and from 256 rows on the pairwise one. Trees take seconds to validate, and
            needed thousands of rows to come near the others: they are tried where they are named.

    Raises:
        InputError: As for `Surrogate.fit`, or no surrogate has one of the names.
    """
    rows, values = check_rows(X, y)
    known = check_noise(noise, len(values))
    tried = tuple(names) if names else MANY if len(values) >= N_MANY else FEW
    chosen = evenly(len(values), _MAX_ROWS)
    rows, values, known = rows[chosen], values[chosen], known[chosen]
    if len(values) < LEAST_ROWS or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Selection(name=tried[0])
    fold = np.random.default_rng(0).permutation(len(values)) % _FOLDS
    scores, densities = [], []
    for name in tried:
        surrogate = make_surrogate(name, space).fit(rows, values, known)
        mean, deviation = held_out(surrogate, rows, values, known, fold)
        scores.append(score(name, values, mean, deviation))
        densities.append(_log_densities(values, mean, deviation))
    likelihoods = np.array(densities)
    behind = likelihoods[np.argmax(likelihoods.mean(axis=1))] - likelihoods
    error = behind.std(axis=1) / np.sqrt(len(values))
    close = np.flatnonzero(behind.mean(axis=1) <= error)
    highest = max(scores[position].tau for position in close)
    best = next(position for position in close if scores[position].tau >= highest - _SAME_TAU)
    return Selection(name=tried[best], scores=tuple(scores))


def held_out(
    surrogate: Surrogate,
    rows: FloatArray,
    values: FloatArray,
    noise: FloatArray,
    fold: NDArray[np.intp],
) -> tuple[FloatArray, FloatArray]:
    """Predict every value, as it was measured, from the rows of the other folds.

    Args:
        surrogate: Fitted to all of the rows; it gives scale and variances.
        rows: ``(n, n_features)``.
        values: ``(n,)``.
        noise: ``(n,)``.
        fold: ``(n,)``, the number of every row's fold.

    Returns:
        Mean and standard deviation, noise included, each ``(n,)``.
    """
    mean, deviation = np.empty(len(values)), np.empty(len(values))
    for number in np.unique(fold):
        out = fold == number
        if isinstance(surrogate, SaturatingProcess):
            mean[out], deviation[out] = _without(surrogate, values, out)
        else:
            model = cast(Refittable, surrogate).refit(rows[~out], values[~out], noise[~out])
            mean[out], true_deviation = model.predict(rows[out])
            deviation[out] = np.hypot(true_deviation, noise[out])
    return mean, deviation


def score(name: str, values: FloatArray, mean: FloatArray, deviation: FloatArray) -> Score:
    """Compare values with what was predicted for them, each ``(n,)``."""
    off = np.abs(values - mean)
    return Score(
        name=name,
        tau=float(kendalltau(mean, values).statistic),
        log_likelihood=float(_log_densities(values, mean, deviation).mean()),
        coverage=float((off <= _NORMAL_95 * deviation).mean()),
        rmse=float(np.sqrt((off**2).mean())),
        mae=float(off.mean()),
    )


def _without(
    surrogate: SaturatingProcess, values: FloatArray, out: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """What a Gaussian process predicts for rows once they are left out of it.

    In closed form (Rasmussen and Williams, 2006, section 5.4.2, for several rows at a time).
    """
    process, scale = surrogate.process_, surrogate.scale_
    targets = (scale.forward(values) - process.mean_) / process.scale_
    selected = np.eye(len(values))[:, out]
    block = cho_solve((process.factor_, True), selected)[out]
    covariance = np.linalg.inv(block)
    mean = targets[out] - covariance @ process.weights_[out]
    deviation = np.sqrt(np.diag(covariance))
    return scale.backward(mean * process.scale_ + process.mean_, deviation * process.scale_)


def _log_densities(values: FloatArray, mean: FloatArray, deviation: FloatArray) -> FloatArray:
    off = (values - mean) / deviation
    densities: FloatArray = -0.5 * off**2 - np.log(deviation) - 0.5 * np.log(2.0 * np.pi)
    return densities
