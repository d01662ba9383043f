"""Importance of choices: the effect of each on an objective, with intervals."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import kendalltau

from hwsearch.encoding import thermometer
from hwsearch.objectives import FloatArray
from hwsearch.prediction.bayesian_regression import evenly_spaced
from hwsearch.prediction.linear import LinearModel
from hwsearch.prediction.prior_covariance import prior_covariances
from hwsearch.report.precisions import precision_columns
from hwsearch.report.run_data import RunData
from hwsearch.space import Architectures
from hwsearch.threads import one_blas_thread

LEAST_TRIALS: Final = 8
_MOST_TRIALS: Final = 400  # that models are fitted to and changes are tried on
_N_DRAWS: Final = 200
_N_FOLDS: Final = 4
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Mean change of an objective from option ``before`` to ``after`` of one choice.

    All other choices are fixed; ``low`` and ``high`` are the 95% interval. The options are the
    first and the last, or those with the lowest and the highest value if they have no order.
    """

    choice: str
    change: float
    low: float
    high: float
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Effects of all choices on an objective, in the order of the space.

    ``trials`` were fitted; ``tau`` is the rank correlation of values and cross-validated
    predictions.
    """

    objective: str
    effects: tuple[Effect, ...]
    trials: int
    tau: float


def importances(data: RunData) -> list[Importance]:
    """Estimate the effect of each choice on each objective that has at least 8 values.

    The model is `LinearModel`: one gain per step of each choice, of either sign. An effect is the
    difference between the ends of the partial dependence (Friedman, Greedy function
    approximation, Annals of Statistics, 2001), over the trials in which the choice is active. A
    block that appears with a deeper stage appears with its first options. Precisions of blocks
    are changed together.
    """
    found = []
    for objective in data.objectives:
        rows = np.flatnonzero(~np.isnan(data.values[objective.name]))
        values = data.values[objective.name][rows]
        if len(rows) < LEAST_TRIALS or np.ptp(values) == 0.0:
            continue
        kept = evenly_spaced(len(rows), _MOST_TRIALS)
        archs, values = data.archs[rows[kept]], values[kept]
        with one_blas_thread():
            found.append(
                Importance(
                    objective=objective.name,
                    effects=tuple(_effects(archs, values)),
                    trials=len(archs),
                    tau=_held_out_tau(archs, values),
                )
            )
    return found


def _fitted(archs: Architectures, values: FloatArray) -> LinearModel:
    model = LinearModel(prior_covariances(archs.space))
    return model.fit(thermometer(archs), values)


def _effects(archs: Architectures, values: FloatArray) -> Iterator[Effect]:
    model = _fitted(archs, values)
    draws = np.random.default_rng(_SEED).standard_normal((model.columns_.shape[1] - 2, _N_DRAWS))
    blocks = precision_columns(archs.space.choices)
    for position, choice in enumerate(archs.space.choices):
        if position in blocks[1:]:
            continue
        positions = blocks if position in blocks else [position]
        there = np.flatnonzero(archs.active[:, positions].any(axis=1))
        active, n = archs[there], len(choice.options)
        if n < 2 or not len(active):
            continue
        ends = [0, n - 1] if choice.ordered else range(n)
        means, drawn = zip(*(_mean(model, active, positions, o, draws) for o in ends), strict=True)
        first, last = (0, 1) if choice.ordered else (int(np.argmin(means)), int(np.argmax(means)))
        low, high = np.percentile(drawn[last] - drawn[first], [2.5, 97.5])
        yield Effect(
            choice=choice.name if len(positions) == 1 else _throughout(len(positions)),
            change=float(means[last] - means[first]),
            low=float(low),
            high=float(high),
            before=str(choice.options[ends[first]]),
            after=str(choice.options[ends[last]]),
        )


def _throughout(blocks: int) -> str:
    return f"precision, of all {blocks} blocks"


def _mean(
    model: LinearModel, archs: Architectures, positions: list[int], option: int, draws: FloatArray
) -> tuple[float, FloatArray]:
    """Return the mean prediction with some choices fixed to an option, also for every draw."""
    indices = archs.indices.copy()
    indices[:, positions] = option
    sums = thermometer(archs.space.from_indices(indices)) @ model.columns_[1:]
    sums += model.columns_[0]
    drawn = sums[:, :1] + sums[:, 2:] @ draws
    means = model.mean_from_sums(drawn.ravel()).reshape(drawn.shape).mean(axis=0)
    return float(model.mean_from_sums(sums[:, 0]).mean()), means


def _held_out_tau(archs: Architectures, values: FloatArray) -> float:
    folds = np.arange(len(values)) % _N_FOLDS
    predicted = np.empty(len(values))
    for fold in range(_N_FOLDS):
        left_out = folds == fold
        model = _fitted(archs[~left_out], values[~left_out])
        predicted[left_out] = model.predict(thermometer(archs[left_out]))[0]
    tau = float(kendalltau(predicted, values).statistic)
    return tau if np.isfinite(tau) else 0.0
