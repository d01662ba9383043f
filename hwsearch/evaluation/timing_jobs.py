"""Timing jobs of a search: the models that they repeat, and latencies corrected by these.

A job is one call of `Device.measure`: it times new models and *bridges*, models that earlier jobs
timed. What is stored is what a job measured; corrected latencies are computed from that.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from hwsearch.accuracy.metric import Z95
from hwsearch.evaluation.job_effects import solve_job_effects
from hwsearch.trials import Measurement

JOB: Final = "job"  # a detail of a latency: the number of its job, from 0
JOB_PURPOSES: Final = ("search", "bridge")
_MODELS_OF_TWO_BRIDGES: Final = 4  # fewer new models get one, since a bridge costs a model's time
_NO_JOB: Final = -1  # latencies of runs before there were jobs count as those of one
_DIGITS: Final = 12  # of a correction: others depend on the order of sums
Solution = Mapping[str, tuple[float, float]]
"""Key -> log ratio in a job of mean effect, and its standard error."""


def job_of(latency: Measurement) -> int:
    """Return the number of a latency's job."""
    return int(latency.details.get(JOB, _NO_JOB))


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


class _Ratio(NamedTuple):
    """A measured ratio to the anchor, in logarithms, with its standard error."""

    key: str
    job: int
    log: float
    error: float


class TimingJobs:
    """The latencies that jobs measured at one batch size, and what they are as the jobs compare.

    Values that later jobs do not change, and those by all jobs, are kept until a job is added.

    Attributes:
        latencies: All of them, bridges included, in the order in which they were measured.
        measured: Key -> latency of the search as its own job measured it.
        next_job: Number of the next job.
    """

    def __init__(self, latencies: Iterable[Measurement] = ()) -> None:
        self.latencies: list[Measurement] = []
        self.measured: dict[str, Measurement] = {}
        self.next_job = _NO_JOB + 1
        self._ratios: list[_Ratio] = []
        self._told_ms: dict[str, float] = {}
        self._latest: Solution | None = None
        self.add(latencies)

    def add(self, latencies: Iterable[Measurement]) -> None:
        """Add latencies of jobs."""
        new = list(latencies)
        self.latencies += new
        if any(job_of(each) < self.next_job for each in new):
            self._told_ms.clear()
        for each in new:
            self._latest, job = None, job_of(each)
            self.next_job = max(self.next_job, job + 1)
            if each.purpose == "search":
                self.measured[each.key] = each
            if "ratio" in each.details:
                log = math.log(each.details["ratio"])
                self._ratios.append(_Ratio(each.key, job, log, _log_error(each)))

    def corrected(self) -> dict[str, Measurement]:
        """Return key -> latency of each model in a job of mean effect, by all jobs.

        Details say what was measured, ``measured_ms``; the ratio and its interval are corrected
        like milliseconds. Intervals are for comparisons within the search. Where no job repeats a
        model nothing is changed.
        """
        solved = self._by_all_jobs()
        return self.measured | {
            key: _moved(self.measured[key], *found) for key, found in solved.items()
        }

    def corrected_ms(self) -> dict[str, float]:
        """Return key -> value of each of the corrected latencies."""
        solved = self._by_all_jobs()
        return {
            key: _moved_ms(each, solved[key][0]) if key in solved else each.value
            for key, each in self.measured.items()
        }

    def told_ms(self, keys: Collection[str]) -> dict[str, float]:
        """Return the latency in ms of each key, by the jobs up to its own one.

        Later jobs never change it, so that a search that is gone on with is told the same.
        """
        found = [key for key in keys if key in self.measured]
        for job in {job_of(self.measured[key]) for key in found if key not in self._told_ms}:
            solved = self._by_all_jobs() if job + 1 == self.next_job else self._solved(job)
            for key, each in self.measured.items():
                if job_of(each) == job:
                    ms = _moved_ms(each, solved[key][0]) if key in solved else each.value
                    self._told_ms[key] = ms
        return {key: self._told_ms[key] for key in found}

    def choose_bridges(self, n_models: int, without: Collection[str] = ()) -> list[str]:
        """Return the keys of up to two timed models that the next job of n new ones repeats.

        One is of the fastest third and one of the slowest third, since jobs need not shift small
        and large models alike; of each third it is the one whose latency is known best. A job of
        few models has one of them, in turns.
        """
        values, solved = self.corrected_ms(), self._by_all_jobs()
        errors = {
            key: solved[key][1] if key in solved else _log_error(each)
            for key, each in self.measured.items()
            if "ratio" in each.details and key not in without
        }
        order = sorted(errors, key=lambda key: (values[key], key))
        third = max(1, len(order) // 3)
        ends = [part for part in (order[:third], order[-third:]) if part]
        best = [min(part, key=lambda key: (round(errors[key], 6), key)) for part in ends]
        if best and n_models < _MODELS_OF_TWO_BRIDGES:
            return [best[self.next_job % 2]]
        return list(dict.fromkeys(best))

    def _by_all_jobs(self) -> Solution:
        if self._latest is None:
            self._latest = self._solved(self.next_job - 1)
        return self._latest

    def _solved(self, until: int) -> Solution:
        """Return the solution by jobs up to one; empty where no job repeats a model."""
        counted, own = self._ratios, self.measured
        if until + 1 < self.next_job:
            own = {key: each for key, each in own.items() if job_of(each) <= until}
            counted = [each for each in counted if each.job <= until]
        counted = [each for each in counted if each.key in own]
        places = {key: place for place, key in enumerate(dict.fromkeys(e.key for e in counted))}
        if len(places) == len(counted):
            return {}
        numbers = {job: place for place, job in enumerate(sorted({e.job for e in counted}))}
        found = solve_job_effects(
            [numbers[each.job] for each in counted],
            [places[each.key] for each in counted],
            [each.log for each in counted],
            [each.error**2 for each in counted],
        )
        pairs = zip(found.logs.tolist(), found.log_errors.tolist(), strict=True)
        return dict(zip(places, pairs, strict=True))


def _log_error(latency: Measurement) -> float:
    """Return the standard error of a latency's ratio, in logarithms."""
    details = latency.details
    return math.log(details["ratio_high"] / details["ratio_low"]) / (2 * Z95)


def _factor(latency: Measurement, log: float) -> float:
    """Return what a latency is multiplied by to have another log ratio."""
    return math.exp(round(log - math.log(latency.details["ratio"]), _DIGITS))


def _moved_ms(latency: Measurement, log: float) -> float:
    """Return the value of a latency with another log ratio."""
    return latency.value * _factor(latency, log)


def _moved(latency: Measurement, log: float, error: float) -> Measurement:
    """Return a latency with another log ratio and its standard error."""
    details: Mapping[str, Any] = latency.details
    value, ratio = _moved_ms(latency, log), details["ratio"] * _factor(latency, log)
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
