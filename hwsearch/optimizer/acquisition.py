"""Acquisition: NSGA-II on predictions, and a batch by expected hypervolume gain."""

from typing import Final

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from hwsearch.objectives import FloatArray, from_losses, hypervolume, to_losses
from hwsearch.optimizer.history import History, beyond_worst
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.optimizer.nsga2 import nsga2
from hwsearch.optimizer.posterior import Forecast, Posterior, posterior_values
from hwsearch.optimizer.scaled_history import ScaledHistory
from hwsearch.space import Architectures

_MAX_LISTED: Final = 4096  # a space up to this size is enumerated
_POPULATION: Final = 100  # for every objective after the first
_GENERATIONS: Final = 60
_MAX_SCORED: Final = 128  # candidates whose expected gain is computed
_OPTIMISM: Final = 2.0  # deviations
_MIN_EXPLORING: Final = 4  # smallest batch with one member for exploration
_N_NODES: Final = 16  # draws from the posterior behind an expectation
_N_DRAWS: Final = 32  # of all values of several evaluations


def find_candidates(
    history: History, posterior: Posterior, rng: np.random.Generator
) -> Architectures:
    """Return architectures never proposed, with the best ones of the posterior among them.

    A small space is enumerated; a large one is searched by NSGA-II on the predicted means, from
    the best told architectures and as many random ones.
    """
    space = history.space
    if space.size <= _MAX_LISTED:
        return space.enumerate(_MAX_LISTED).unique(history.asked)

    population = _POPULATION * max(len(history.objectives) - 1, 1)
    elite = history.told[_best_first(history, posterior)[: population // 2]]
    elite = Architectures.concatenate([elite, *history.start]).unique()[:population]
    fresh = space.sample_distinct(population - len(elite), rng, exclude=elite)
    start = Architectures.concatenate([elite, fresh])
    found = nsga2(posterior.losses, start, rng, population=population, generations=_GENERATIONS)
    return found.unique(history.asked)


def choose_batch(
    history: History,
    posterior: Posterior,
    candidates: Architectures,
    n: int,
    rng: np.random.Generator,
) -> Architectures:
    """Choose up to n candidates, one after the other, by expected hypervolume gain.

    The gain of a feasible success (Emmerich, 2005) is averaged over draws from the posterior,
    given the front (estimates at their posterior means) and the predicted values of pending and
    chosen architectures. The last of a batch explores: it has the largest gain at values two
    deviations better. Where no gain is expected, the candidate nearest to feasible is chosen
    while nothing feasible is known, then the least certain one.
    """
    forecast = posterior.forecast(candidates)
    known = posterior_values(history, posterior)
    known_losses, on_front = to_losses(known, history.objectives), history.non_dominated(known)
    reference = beyond_worst(known_losses[history.succeeded])
    front = np.concatenate([known_losses[on_front], _pending(history, posterior)])
    losses = to_losses(forecast.mean, history.objectives)
    optimistic = losses - _OPTIMISM * forecast.deviation
    left = _most_promising(history, forecast, hypervolume_gain(optimistic, front, reference))
    draws = _draws(losses, forecast.deviation, rng)
    chosen: list[int] = []
    while left and len(chosen) < n:
        explores = len(chosen) + 1 == n >= _MIN_EXPLORING
        points = optimistic[np.newaxis, left] if explores else draws[:, left]
        gains = _expected_gain(history, points, front, reference) * forecast.success[left]
        best = left[int(np.argmax(gains))]
        if gains.max() <= 0.0:
            best = _without_gain(history, forecast, draws, left, found=bool(on_front.any()))
        left.remove(best)
        chosen.append(best)
        if history.feasible(forecast.mean[[best]])[0]:
            front = np.concatenate([front, losses[[best]]])
    history.record_forecasts(candidates[chosen], forecast.mean[chosen], forecast.deviation[chosen])
    return candidates[chosen]


def expected_gain(history: History, n: int, rng: np.random.Generator) -> float:
    """Return the hypervolume that n more evaluations are expected to add if chosen now.

    Values of the n most promising candidates are drawn from their predictions, failures and
    missed constraints among them, and the hypervolume that the draws add is averaged. What the
    search learns meanwhile is left out: in the tests and on recorded ImageNet results the search
    then added one to three times as much.
    """
    reference = history.reference
    assert reference is not None
    history = ScaledHistory(history)
    posterior = Posterior(history)
    forecast = posterior.forecast(find_candidates(history, posterior, rng))
    losses = to_losses(forecast.mean, history.objectives)
    known = posterior_values(history, posterior)
    known = history.in_units(known[history.non_dominated(known)])
    front = to_losses(known, history.objectives)
    hopeful = _in_units(history, losses - _OPTIMISM * forecast.deviation)
    optimistic = hypervolume_gain(hopeful, front, reference)
    best = np.argsort(-optimistic * forecast.success, kind="stable")[:n]
    before = hypervolume(front, reference)
    gains = []
    for _ in range(_N_DRAWS):
        drawn: FloatArray = losses[best] + forecast.deviation[best] * rng.standard_normal(
            losses[best].shape
        )
        happens = rng.random(len(best)) < forecast.success[best]
        happens &= history.feasible(from_losses(drawn, history.objectives))
        drawn = _in_units(history, drawn[happens])
        gains.append(hypervolume(np.concatenate([front, drawn]), reference) - before)
    return float(np.mean(gains))


def _in_units(history: History, losses: FloatArray) -> FloatArray:
    """Return losses of a scaled history as those of the objectives' units."""
    values = history.in_units(from_losses(losses, history.objectives))
    return to_losses(values, history.objectives)


def _most_promising(
    history: History, forecast: Forecast, optimistic_gains: FloatArray
) -> list[int]:
    """Return positions of the candidates to score: near to feasible, then by optimistic gain."""
    margin = _OPTIMISM * forecast.deviation
    outcomes = (forecast.mean - margin, forecast.mean, forecast.mean + margin)
    missed = np.min([history.violation(values) for values in outcomes], axis=0)
    order = np.lexsort((-optimistic_gains * forecast.success, missed))
    return [int(position) for position in order[:_MAX_SCORED]]


def _best_first(history: History, posterior: Posterior) -> NDArray[np.int64]:
    """Return positions of successes by violation, then by Pareto rank."""
    succeeded = np.flatnonzero(history.succeeded)
    values = posterior_values(history, posterior)[succeeded]
    losses, violations = to_losses(values, history.objectives), history.violation(values)
    return succeeded[np.lexsort((moocore.pareto_rank(losses), violations))]


def _pending(history: History, posterior: Posterior) -> FloatArray:
    """Return predicted losses of pending architectures that are predicted to be feasible."""
    pending = history.pending
    if not len(pending):
        return np.empty((0, len(history.objectives)))
    mean = posterior.forecast(pending).mean
    return to_losses(mean[history.feasible(mean)], history.objectives)


def _draws(losses: FloatArray, deviation: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return draws ``(_N_NODES, n, n_objectives)`` of losses, a Latin hypercube."""
    quantiles = ndtri((np.arange(_N_NODES) + 0.5) / _N_NODES)
    nodes = rng.permuted(np.tile(quantiles, (losses.shape[1], 1)), axis=1).T
    draws: FloatArray = losses + deviation * nodes[:, np.newaxis, :]
    return draws


def _expected_gain(
    history: History, draws: FloatArray, front: FloatArray, reference: FloatArray
) -> FloatArray:
    flat = draws.reshape(-1, draws.shape[2])
    gains = hypervolume_gain(flat, front, reference)
    gains[~history.feasible(from_losses(flat, history.objectives))] = 0.0
    mean: FloatArray = gains.reshape(draws.shape[:2]).mean(axis=0)
    return mean


def _without_gain(
    history: History, forecast: Forecast, draws: FloatArray, left: list[int], *, found: bool
) -> int:
    """Return the candidate nearest to feasible while none is known, else the least certain."""
    if not found:
        flat = draws[:, left].reshape(-1, draws.shape[2])
        missed = history.violation(from_losses(flat, history.objectives))
        return left[int(np.argmin(missed.reshape(len(draws), len(left)).mean(axis=0)))]
    spread = np.nanstd(history.values, axis=0)
    unsure = (forecast.deviation[left] / np.where(spread > 0, spread, 1.0)).sum(axis=1)
    return left[int(np.argmax(unsure * forecast.success[left]))]
