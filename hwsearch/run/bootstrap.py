"""Bootstrap draws of scores and latencies, and shares of draws in which a front has a member.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993. A draw resamples images or
rounds for all architectures together: effects that they share shift all values alike, so that
differences vary less than values.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.intervals import Z95
from hwsearch.constraints import Constraint, satisfied
from hwsearch.devices.latency_statistics import N_DRAWS, median_draws
from hwsearch.objectives import BoolArray, FloatArray, Objective, to_losses
from hwsearch.trials import Measurement

_IMAGES, _ROUNDS, _INTERVALS = 1, 2, 3  # joined with the seed: independent random streams
_CHUNK: Final = 100  # draws at a time; image counts of all 2000 would fill the memory


def score_draws(scores: Sequence[Measurement], seed: int) -> FloatArray:
    """Draw the scores ``(2000, n)`` of n measurements on resampled images; one seed, one resample.

    Images with the same outcomes for all architectures are interchangeable, so that counts of
    each kind are drawn instead of images.
    """
    outcomes = np.array([np.asarray(score.samples, np.float64) for score in scores])
    kinds, counts = np.unique(outcomes, axis=1, return_counts=True)
    n_images, rng = outcomes.shape[1], np.random.default_rng((seed, _IMAGES))
    parts = [
        rng.multinomial(n_images, counts / n_images, size=_CHUNK) @ kinds.T
        for _ in range(N_DRAWS // _CHUNK)
    ]
    means = outcomes.mean(axis=1)
    scales = np.array([score.value for score in scores]) / np.where(means == 0.0, 1.0, means)
    draws: FloatArray = np.concatenate(parts) / n_images * scales
    return draws


def latency_draws(
    latencies: Sequence[Measurement], ratios: Mapping[str, Measurement], seed: int
) -> FloatArray:
    """Draw n confirmed latencies in ms, ``(2000, n)``, on rounds resampled for a whole job.

    Rounds are resampled in blocks, as for the interval of a latency. The baseline of the anchor,
    which converts ratios to milliseconds, is drawn from its interval, once for all latencies. A
    latency without ratios (stores of the first version) is drawn from its own interval.
    """
    rng = np.random.default_rng((seed, _ROUNDS))
    draws = np.empty((N_DRAWS, len(latencies)))
    jobs: dict[tuple[float, int], list[int]] = {}
    for place, latency in enumerate(latencies):
        if latency.key not in ratios:
            jobs[0.0, place] = [place]
            continue
        # The median time of the anchor identifies a job.
        job = latency.details["anchor_ms"], latency.details["rounds"]
        jobs.setdefault(job, []).append(place)
    for _, places in sorted(jobs.items()):
        members = [latencies[place] for place in places]
        draws[:, places] = _job_draws(members, ratios, rng)
    baseline = np.random.default_rng((seed, _INTERVALS)).standard_normal((N_DRAWS, 1))
    spread = max(
        _log_deviation(each.details["baseline_low_ms"], each.details["baseline_high_ms"])
        for each in latencies
    )
    milliseconds: FloatArray = draws * np.exp(spread * baseline)
    return milliseconds


def interval_draws(value: float, low: float, high: float, seed: int) -> FloatArray:
    """Draw a positive value ``(2000,)`` log-normally from its 95% interval."""
    rng = np.random.default_rng((seed, _INTERVALS))
    draws: FloatArray = value * np.exp(_log_deviation(low, high) * rng.standard_normal(N_DRAWS))
    return draws


def front_membership(
    draws: Mapping[str, FloatArray],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> FloatArray:
    """Return the share of draws in which each of n architectures is on the front, ``(n,)``.

    Source: Efron and Tibshirani, The Problem of Regions, Annals of Statistics, 1998. Of two
    nearly equal architectures each is on the front in about half of the draws; of two equal ones
    both are in all draws. The draws of an objective are ``(n_draws, n)``, or ``(1, n)`` if exact.
    """
    shape = np.broadcast_shapes(*(array.shape for array in draws.values()))
    flat = {name: np.broadcast_to(array, shape).ravel() for name, array in draws.items()}
    columns = [flat[objective.name] for objective in objectives]
    losses = to_losses(np.column_stack(columns), objectives).reshape(*shape, len(objectives))
    allowed = np.ones(shape, dtype=np.bool_)
    if constraints:
        allowed = satisfied(flat, constraints).reshape(shape)
    rates = [_undominated(losses, allowed, place).mean() for place in range(shape[1])]
    return np.array(rates, dtype=np.float64)


def _undominated(losses: FloatArray, allowed: BoolArray, place: int) -> BoolArray:
    """Return the draws ``(n_draws,)`` in which an architecture is feasible and not dominated."""
    ahead = losses - losses[:, place : place + 1]
    dominates = (ahead <= 0).all(axis=2) & (ahead < 0).any(axis=2) & allowed
    on_front: BoolArray = allowed[:, place] & ~dominates.any(axis=1)
    return on_front


def _job_draws(
    members: Sequence[Measurement], ratios: Mapping[str, Measurement], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the latencies of one job, ``(2000, len(members))`` in ms, without the baseline."""
    values = np.array([member.value for member in members])
    if members[0].key not in ratios:
        (details,) = (member.details for member in members)
        spread = _log_deviation(details["ratio_low"], details["ratio_high"])
        return np.asarray(values * np.exp(spread * rng.standard_normal((N_DRAWS, 1))))
    rounds = np.column_stack([np.asarray(ratios[m.key].samples, np.float64) for m in members])
    drawn = median_draws(rounds, rng)
    return np.asarray(values * drawn / np.nanmedian(rounds, axis=0), dtype=np.float64)


def _log_deviation(low: float, high: float) -> float:
    return math.log(high / low) / (2 * Z95)
