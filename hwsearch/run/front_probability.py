"""Bootstrap probabilities that an architecture is on the front, or satisfies a constraint.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993. A draw resamples images or
rounds for all architectures together: effects that they share shift all values alike, so that
differences vary less than values.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.accuracy.metric import Z95
from hwsearch.constraints import Constraint, satisfied
from hwsearch.devices.latency_statistics import CONFIDENCE, student_quantile
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY, RATIO, THROUGHPUT
from hwsearch.objectives import FloatArray, Objective
from hwsearch.quantities import exact_quantities
from hwsearch.run.front import losses_of
from hwsearch.run.setup import Setup
from hwsearch.trials import Measurement

if TYPE_CHECKING:
    import pandas as pd

_IMAGES, _ROUNDS, _INTERVALS = 1, 2, 3  # joined with the seed: independent random streams
N_DRAWS: Final = 2000
_CHUNK: Final = 100  # draws at a time; image counts of all 2000 would fill the memory


def front_probabilities(
    setup: Setup,
    evaluator: Evaluator,
    keys: Sequence[str],
    values: Mapping[str, FloatArray],
    timed: Mapping[str, Sequence[Measurement]],
    refined: Mapping[str, Mapping[str, Measurement]] = MappingProxyType({}),
) -> dict[str, float]:
    """Return the probability of each of n contenders to be on the front of the true values.

    The front is that of the contenders, which were timed together. They were selected by the same
    images, so that the probabilities of the best are slightly too high. ``timed`` are their
    confirmed latencies and throughputs by quantity, ``refined`` scores of refined weights
    by key and quantity.
    """
    seed, draws = setup.config.seed, {}
    confirmed = evaluator.store.measurements(purpose="confirm")
    for objective in setup.objectives:
        name = objective.name
        if name in timed:
            draws[name] = timed_draws(timed[name], confirmed, seed)
        elif objective.computed is not None:
            draws[name] = values[name][np.newaxis]
        else:
            scores = (
                refined.get(key, {}).get(name) or evaluator.remembered(key, name) for key in keys
            )
            draws[name] = score_draws([score for score in scores if score is not None], seed)
    rates = front_membership(draws, setup.objectives, setup.constraints)
    return dict(zip(keys, rates.tolist(), strict=True))


def constraint_probabilities(
    constraint: Constraint, members: "pd.DataFrame", measured: Sequence[Measurement], seed: int
) -> FloatArray:
    """Return the probability ``(n,)`` that the true value of each member satisfies a constraint.

    It is the one-sided share of the bootstrap draws of `front_probabilities`. A predicted value is
    drawn from its interval; an exact one has probability 0 or 1; one without is an InputError.
    """
    name, keys = constraint.objective, [str(key) for key in members["key"]]
    exact = {*exact_quantities(), *members.columns[members.columns.get_loc("subnet") + 1 :]}
    purpose = "report" if name.endswith("_report") else "search"
    quantity = name.removesuffix("_report")
    scores = {m.key: m for m in measured if (m.quantity, m.purpose) == (quantity, purpose)}
    if purpose == "search" and name in members:
        stated = dict(zip(keys, members[name], strict=True))
        refined = (m for m in measured if (m.quantity, m.purpose) == (quantity, "confirm"))
        scores |= {m.key: m for m in refined if stated.get(m.key) == m.value}
    if f"{name}_source" in members:
        value, low, high = members[[name, f"{name}_low", f"{name}_high"]].to_numpy(float).T
        draws = interval_draws(value, low, high, seed)
    elif name in exact:
        draws = members[name].to_numpy(float)[np.newaxis]
    elif name in (LATENCY, THROUGHPUT):
        timed = _timed_together(name, members, measured)
        order = [m.key for m in timed]
        columns = [order.index(key) for key in keys]
        draws = timed_draws(timed, measured, seed)[:, columns]
    elif f"{name}_low" in members and scores:
        draws = score_draws([scores[key] for key in keys], seed)
    else:
        known = [column.removesuffix("_low") for column in members if column.endswith("_low")]
        raise InputError(
            f"{name} has no interval, so that nothing is known of how surely '{constraint}' "
            f"holds; it is known of {', '.join([*known, *exact_quantities()])} and of the choices"
        )
    kept = satisfied({name: draws.ravel()}, [constraint]).reshape(draws.shape)
    return np.asarray(kept.mean(axis=0), np.float64)


def _timed_together(
    name: str, members: "pd.DataFrame", measured: Sequence[Measurement]
) -> list[Measurement]:
    """Return the confirmed values of a quantity that were measured with the members' own."""
    contexts: dict[str, list[Measurement]] = {}
    for each in measured:
        if (each.quantity, each.purpose) == (name, "confirm"):
            contexts.setdefault(each.context, []).append(each)
    for timed in reversed(contexts.values()):
        values = {each.key: each.value for each in timed}
        stated = zip(members["key"], members[name], strict=True)
        if all(math.isclose(values.get(key, math.nan), value) for key, value in stated):
            return timed
    kind = "latencies" if name == LATENCY else f"{name}s"
    raise InputError(f"the run's store does not hold the {kind} that its front states")


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
    return np.asarray(np.concatenate(parts) / n_images * scales, np.float64)


def timed_draws(
    timed: Sequence[Measurement], measured: Sequence[Measurement], seed: int
) -> FloatArray:
    """Draw n latencies or throughputs that were confirmed together: ``(2000, n)``.

    ``measured`` has their ratios, and the latencies that throughputs are computed from: those of
    each batch size are drawn as those of a job, and each draw has the best size of its own.
    """
    known = {each.identity: each for each in measured}
    if timed[0].quantity != THROUGHPUT:
        found = (known.get((m.key, RATIO, m.context, "confirm")) for m in timed)
        return latency_draws(timed, {ratio.key: ratio for ratio in found if ratio}, seed)
    draws = []
    for size in timed[0].details["at"]:
        at = [(m.key, m.details["at"][size]) for m in timed]
        latencies = [known[key, of["quantity"], of["context"], "confirm"] for key, of in at]
        draws.append(int(size) * 1e3 / timed_draws(latencies, measured, seed))
    return np.asarray(np.max(draws, axis=0), np.float64)


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
        details = latency.details
        if latency.key in ratios:
            # The median time of the anchor identifies a job.
            jobs.setdefault((details["anchor_ms"], details["rounds"]), []).append(place)
        else:
            spread = _log_deviation(details["ratio_low"], details["ratio_high"])
            draws[:, place] = np.exp(spread * rng.standard_normal(N_DRAWS))
    for _, places in sorted(jobs.items()):
        job = [ratios[latencies[place].key] for place in places]
        rounds = np.column_stack([np.asarray(ratio.samples, np.float64) for ratio in job])
        draws[:, places] = median_draws(rounds, rng) / np.nanmedian(rounds, axis=0)
    spread = max(
        _log_deviation(each.details["baseline_low_ms"], each.details["baseline_high_ms"])
        for each in latencies
    )
    baseline = np.random.default_rng((seed, _INTERVALS)).standard_normal((N_DRAWS, 1))
    values = np.array([latency.value for latency in latencies])
    return np.asarray(values * draws * np.exp(spread * baseline), np.float64)


def median_draws(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return bootstrapped medians of columns (circular block bootstrap; Politis and Romano 1992).

    Neighbouring rounds are correlated, so rows are drawn in blocks of about the cube root of their
    number, the same for all columns. With few blocks such draws are too narrow: each is moved away
    from the sample's median, in logarithms, by the ratio of Student's t to the normal quantile at
    one degree of freedom less than there are blocks.

    Args:
        values: (n_rounds, n_columns), positive; NaN where a row does not count for a column, but
            not in a whole column.
        rng: Random generator of the blocks.

    Returns:
        (2000, n_columns) medians of the counted rows; of the whole column where a draw has none.
    """
    n_rounds, n_columns = values.shape
    length = max(1, round(n_rounds ** (1 / 3)))
    n_blocks = -(-n_rounds // length)
    starts = rng.integers(0, n_rounds, (N_DRAWS, n_blocks, 1))
    rows = ((starts + np.arange(length)) % n_rounds).reshape(N_DRAWS, -1)[:, :n_rounds]
    drawn = [_medians(values[rows, column]) for column in range(n_columns)]
    centre = _medians(values.T)
    draws = np.where(np.isnan(drawn), centre[:, None], drawn).T
    quantile = (1 + CONFIDENCE) / 2
    freedom = np.maximum(1.0, np.isfinite(values).sum(axis=0) / length - 1)
    wide = [student_quantile(quantile, float(each)) for each in freedom]
    widening = np.array(wide) / NormalDist().inv_cdf(quantile)
    return np.asarray(centre * (draws / centre) ** widening, dtype=np.float64)


def _medians(values: FloatArray) -> FloatArray:
    """Return medians of rows without NaN; NaN for rows of NaN."""
    n_counted = (~np.isnan(values)).sum(axis=1)
    ordered, rows = np.sort(values, axis=1), np.arange(len(values))  # NaN comes last
    low = ordered[rows, np.maximum(n_counted - 1, 0) // 2]
    middle: FloatArray = (low + ordered[rows, n_counted // 2]) / 2
    return middle


def interval_draws(value: ArrayLike, low: ArrayLike, high: ArrayLike, seed: int) -> FloatArray:
    """Draw n positive values ``(2000, n)`` log-normally from their 95% intervals, all alike."""
    normal = np.random.default_rng((seed, _INTERVALS)).standard_normal((N_DRAWS, 1))
    return np.asarray(value * np.exp(_log_deviation(low, high) * normal), np.float64)


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
    losses = losses_of(flat, objectives).reshape(*shape, len(objectives))
    allowed = satisfied(flat, constraints).reshape(shape)
    rates = np.empty(shape[1])
    for place in range(shape[1]):
        ahead = losses - losses[:, place : place + 1]
        dominates = (ahead <= 0).all(axis=2) & (ahead < 0).any(axis=2) & allowed
        rates[place] = (allowed[:, place] & ~dominates.any(axis=1)).mean()
    return rates


def _log_deviation(low: ArrayLike, high: ArrayLike) -> FloatArray:
    return np.asarray(np.log(np.divide(high, low)) / (2 * Z95), np.float64)
