"""Timing jobs of a search: the models that they repeat, and latencies corrected by these.

A job is one call of `Device.measure`: it times new models and *bridges*, models that earlier jobs
timed. What is stored is what a job measured; corrected latencies are computed from that.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hwsearch.accuracy.metric import Z95
from hwsearch.evaluation.job_effects import solve_job_effects
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

JOB: Final = "job"  # a detail of a latency: the number of its job, from 0
JOB_PURPOSES: Final = ("search", "bridge")
_MODELS_OF_TWO_BRIDGES: Final = 4  # fewer new models get one, since a bridge costs a model's time
_NO_JOB: Final = -1  # latencies of runs before there were jobs count as those of one
_DIGITS: Final = 12  # of a correction: others depend on the order of sums


def latencies_of(store: Store) -> list[Measurement]:
    """Return the latencies that the jobs of a search measured, bridges included, in order."""
    stored = store.measurements(quantity=LATENCY)
    return [each for each in stored if each.purpose in JOB_PURPOSES]


def job_of(latency: Measurement) -> int:
    """Return the number of a latency's job."""
    return int(latency.details.get(JOB, _NO_JOB))


def next_job(latencies: Sequence[Measurement]) -> int:
    """Return the number of the next job."""
    return 1 + max(map(job_of, latencies), default=_NO_JOB)


def device_context(latency: Measurement) -> str:
    """Return the context of a latency without its job, which that of a bridge names."""
    return latency.context.rpartition(" ")[0] if latency.purpose == "bridge" else latency.context


def as_bridge(latency: Measurement) -> Measurement:
    """Return a latency of a job as that of a bridge, of which a model has one per job."""
    context = f"{latency.context} {JOB}={job_of(latency)}"
    return replace(latency, purpose="bridge", context=context)


def in_job(latency: Measurement, job: int) -> Measurement:
    """Return a latency as one of the job of another number."""
    renumbered = replace(
        latency, context=device_context(latency), details={**latency.details, JOB: job}
    )
    return as_bridge(renumbered) if latency.purpose == "bridge" else renumbered


def choose_bridges(
    latencies: Sequence[Measurement], n_models: int, without: Collection[str] = ()
) -> list[str]:
    """Return the keys of up to two timed models that the next job of n new ones repeats.

    One is of the fastest third and one of the slowest third, since jobs need not shift small and
    large models alike; of each third it is the one whose latency is known best. A job of few
    models has one of them, in turns.
    """
    known = {k: m for k, m in corrected(latencies).items() if "ratio" in m.details}
    known = {key: each for key, each in known.items() if key not in without}
    order = sorted(known, key=lambda key: (known[key].value, key))
    third = max(1, len(order) // 3)
    ends = [part for part in (order[:third], order[-third:]) if part]
    best = [min(part, key=lambda key: (round(_log_error(known[key]), 6), key)) for part in ends]
    if best and n_models < _MODELS_OF_TWO_BRIDGES:
        return [best[next_job(latencies) % 2]]
    return list(dict.fromkeys(best))


def corrected(
    latencies: Sequence[Measurement], until: int | None = None
) -> dict[str, Measurement]:
    """Return key -> latency of each model in a job of mean effect, by jobs up to ``until``.

    Details say what was measured, ``measured_ms``; the ratio and its interval are corrected like
    milliseconds. Intervals are for comparisons within the search. Where no job repeats a model
    nothing is changed.
    """
    counted = [each for each in latencies if until is None or job_of(each) <= until]
    own = {each.key: each for each in counted if each.purpose == "search"}
    entries = [each for each in counted if each.key in own and "ratio" in each.details]
    if len({each.key for each in entries}) == len(entries):
        return own
    places = {key: place for place, key in enumerate(dict.fromkeys(e.key for e in entries))}
    numbers = {job: place for place, job in enumerate(sorted({job_of(e) for e in entries}))}
    found = solve_job_effects(
        [numbers[job_of(each)] for each in entries],
        [places[each.key] for each in entries],
        [math.log(each.details["ratio"]) for each in entries],
        [_log_error(each) ** 2 for each in entries],
    )
    logs, errors = found.logs.tolist(), found.log_errors.tolist()
    return own | {
        key: _moved(own[key], logs[place], errors[place]) for key, place in places.items()
    }


def told_latencies(latencies: Sequence[Measurement], keys: Collection[str]) -> dict[str, float]:
    """Return the latency in ms of each key, by the jobs up to its own one.

    Later jobs never change it, so that a search that is gone on with is told the same.
    """
    jobs = {each.key: job_of(each) for each in latencies if each.purpose == "search"}
    wanted = {key: jobs[key] for key in keys if key in jobs}
    by_job = {job: corrected(latencies, job) for job in set(wanted.values())}
    return {key: by_job[job][key].value for key, job in wanted.items()}


def with_corrected_latencies(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return measurements of a run, the latencies of its search corrected by all jobs."""
    jobs = [m for m in measurements if m.quantity == LATENCY and m.purpose in JOB_PURPOSES]
    latest = corrected(jobs)
    return [
        latest[m.key] if (m.quantity, m.purpose) == (LATENCY, "search") else m
        for m in measurements
    ]


def _log_error(latency: Measurement) -> float:
    """Return the standard error of a latency's ratio, in logarithms."""
    details = latency.details
    return math.log(details["ratio_high"] / details["ratio_low"]) / (2 * Z95)


def _moved(latency: Measurement, log: float, error: float) -> Measurement:
    """Return a latency with another log ratio and its standard error."""
    details: Mapping[str, Any] = latency.details
    factor = math.exp(round(log - math.log(details["ratio"]), _DIGITS))
    value, ratio = latency.value * factor, details["ratio"] * factor
    low, high = latency.low or latency.value, latency.high or latency.value
    whole = math.log(high / low) / (2 * Z95)
    baseline = math.sqrt(max(0.0, whole**2 - _log_error(latency) ** 2))
    spread, spread_ms = math.exp(Z95 * error), math.exp(Z95 * math.hypot(error, baseline))
    return replace(
        latency,
        value=value,
        low=value / spread_ms,
        high=value * spread_ms,
        details={
            **details,
            "ratio": ratio,
            "ratio_low": ratio / spread,
            "ratio_high": ratio * spread,
            "measured_ms": latency.value,
        },
    )
