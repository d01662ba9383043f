"""Hypervolume gain: of a front by one more point, and expected of further evaluations."""

import itertools
from typing import Final

import numpy as np

from hwsearch.objectives import (
    FloatArray,
    from_losses,
    hypervolume,
    is_non_dominated,
    to_losses,
)
from hwsearch.optimizer.history import History
from hwsearch.optimizer.tactics import MIN_SUCCESSES

_N_DRAWS: Final = 32
_OPTIMISM: Final = 2.0  # deviations
_STREAM: Final = 7  # separates its random numbers from those of the proposals


def hypervolume_gain(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the gain in hypervolume by each point alone: ``(n,)``.

    In two dimensions the free region is cut into vertical strips; in more, the last objective is
    cut into slabs, within each of which the points of the front that reach it leave the same
    problem with one objective less. Losses are minimised; points beyond the reference gain 0, and
    dominated rows of the front do not matter.
    """
    inside = front[(front < reference).all(axis=1)]
    inside = np.unique(inside[is_non_dominated(inside)], axis=0)
    return _gain(np.minimum(points, reference), inside, reference)


def _gain(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    if points.shape[1] == 1:
        best = front[:, 0].min(initial=reference[0])
        length: FloatArray = np.maximum(best - points[:, 0], 0.0)
        return length
    if points.shape[1] == 2:
        return _gain_in_plane(points, front, reference)
    front = front[np.argsort(front[:, -1], kind="stable")]
    cuts = np.concatenate([[-np.inf], front[:, -1], reference[-1:]])
    total = np.zeros(len(points))
    for n_below, (low, high) in enumerate(itertools.pairwise(cuts)):
        height = high - np.maximum(points[:, -1], low)
        reaching = np.flatnonzero(height > 0)
        if low == high or not len(reaching):
            continue
        below = front[:n_below, :-1]
        below = below[is_non_dominated(below)]
        area = _gain(points[reaching, :-1], below, reference[:-1])
        total[reaching] += height[reaching] * area
    return total


def _gain_in_plane(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the gains for two objectives and a front without dominated points."""
    order = np.lexsort((front[:, 1], front[:, 0]))
    x = np.concatenate([[-np.inf], front[order, 0], reference[:1]])
    tops = np.concatenate([reference[1:], front[order, 1]])
    widths = x[1:] - np.maximum(points[:, :1], x[:-1])
    heights = tops - points[:, 1:]
    gain: FloatArray = (np.maximum(widths, 0.0) * np.maximum(heights, 0.0)).sum(axis=1)
    return gain


def expected_gain(history: History, n: int, seed: int) -> float | None:
    """Return the hypervolume that n more evaluations are expected to add if chosen now.

    Values of the n most promising candidates are drawn from their predictions, failures and
    missed constraints among them, and the hypervolume that the draws add is averaged. What the
    search learns meanwhile is left out: in the tests and on recorded ImageNet results the search
    then added one to three times as much. It is 0 where nothing is left to propose, None where
    there are too few values for surrogates. The same history gives the same number.
    """
    if history.succeeded.sum() < MIN_SUCCESSES or not history.measured.any():
        return None
    if not history.n_left:
        return 0.0
    from hwsearch.prediction.threads import one_blas_thread

    with one_blas_thread():
        return _simulated(history, n, np.random.default_rng((seed, len(history.told), _STREAM)))


def _simulated(history: History, n: int, rng: np.random.Generator) -> float:
    from hwsearch.optimizer.acquisition import find_candidates
    from hwsearch.optimizer.posterior import Posterior, posterior_values

    posterior = Posterior(history)
    forecast = posterior.forecast(find_candidates(history, posterior, rng))
    losses = to_losses(forecast.mean, history.objectives)
    known, reference = posterior_values(history, posterior), history.reference
    assert reference is not None
    front = to_losses(known[history.non_dominated(known)], history.objectives)
    optimistic = hypervolume_gain(losses - _OPTIMISM * forecast.deviation, front, reference)
    best = np.argsort(-optimistic * forecast.success, kind="stable")[:n]
    before = hypervolume(front, reference)
    gains = []
    for _ in range(_N_DRAWS):
        drawn: FloatArray = losses[best] + forecast.deviation[best] * rng.standard_normal(
            losses[best].shape
        )
        happens = rng.random(len(best)) < forecast.success[best]
        happens &= history.feasible(from_losses(drawn, history.objectives))
        gains.append(hypervolume(np.concatenate([front, drawn[happens]]), reference) - before)
    return float(np.mean(gains))
