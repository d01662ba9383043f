"""Latencies and throughputs of a search, as its timing jobs compare.

Every batch size has jobs of its own, each with effects of its own. A throughput is computed from
the corrected latencies of its batch sizes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from hwsearch.evaluation.measurements import BATCH_LATENCY, LATENCY, THROUGHPUT
from hwsearch.evaluation.throughput import throughput_measurement
from hwsearch.evaluation.timing_jobs import (
    JOB_PURPOSES,
    TimingJobs,
    device_context,
    in_job,
    job_of,
)
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

T = TypeVar("T")


class Timings:
    """The timing jobs of a search by batch size, and the throughputs that follow from them."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        self._jobs: dict[tuple[str, str], TimingJobs] = {}
        self._throughputs: dict[str, Measurement] = {}  # as they were when they were measured
        self._n_read = 0  # measurements of the store
        self.add(measurements)

    def add(self, measurements: Iterable[Measurement]) -> None:
        """Add those of measurements that a search timed."""
        new: dict[tuple[str, str], list[Measurement]] = {}
        for each in measurements:
            if _is_of_job(each):
                new.setdefault((each.quantity, device_context(each)), []).append(each)
            elif (each.quantity, each.purpose) == (THROUGHPUT, "search"):
                self._throughputs[each.key] = each
        for (quantity, context), latencies in new.items():
            self.jobs(quantity, context).add(latencies)

    def read(self, store: Store) -> Self:
        """Add what the store got since the last call, without raw times; return these timings."""
        n_measurements = store.n_measurements
        if n_measurements > self._n_read:
            self.add(store.measurements(after=self._n_read, samples=False))
            self._n_read = n_measurements
        return self

    def jobs(self, quantity: str, context: str) -> TimingJobs:
        """Return the jobs of one batch size: of its latencies' quantity and device context."""
        return self._jobs.setdefault((quantity, context), TimingJobs())

    def renumbered(self, measurements: Iterable[Measurement]) -> list[Measurement]:
        """Return measurements of another process, which counted its jobs from 0, as next ones."""
        found = []
        for each in measurements:
            if _is_of_job(each):
                job = self.jobs(each.quantity, device_context(each)).next_job
                found.append(in_job(each, job + job_of(each)))
            else:
                found.append(each)
        return found

    def corrected(self, quantity: str) -> dict[str, Measurement]:
        """Return key -> latency or throughput by all jobs; see `TimingJobs.corrected`.

        A throughput whose latencies are not stored, as in runs of before, is as it was measured.
        """
        if quantity == LATENCY:
            return self._latencies(TimingJobs.corrected)
        found, known = dict(self._throughputs), self._of_batches(TimingJobs.corrected)
        for key, at in known.items():
            raw = found[key]
            new = throughput_measurement(key, at, raw.context, raw.purpose)
            found[key] = replace(new, details={**raw.details, **new.details})
        return found

    def corrected_values(self, quantity: str) -> dict[str, float]:
        """Return key -> value of each of the corrected latencies or throughputs."""
        return self._values(quantity, TimingJobs.corrected_ms)

    def told(self, quantity: str, keys: Collection[str]) -> dict[str, float]:
        """Return latencies or throughputs of keys by the jobs up to their own.

        See `TimingJobs.told_ms`.
        """
        return self._values(quantity, lambda jobs: jobs.told_ms(keys))

    def _values(
        self, quantity: str, of_jobs: Callable[[TimingJobs], Mapping[str, float]]
    ) -> dict[str, float]:
        if quantity == LATENCY:
            return self._latencies(of_jobs)
        return {
            key: max(1e3 * size / latency_ms for size, latency_ms in at.items())
            for key, at in self._of_batches(of_jobs).items()
        }

    def _latencies(self, of_jobs: Callable[[TimingJobs], Mapping[str, T]]) -> dict[str, T]:
        """Return key -> latency at the device's own batch size."""
        found: dict[str, T] = {}
        for (quantity, _), jobs in self._jobs.items():
            found |= of_jobs(jobs) if quantity == LATENCY else {}
        return found

    def _of_batches(
        self, of_jobs: Callable[[TimingJobs], Mapping[str, T]]
    ) -> dict[str, dict[int, T]]:
        """Return key -> batch size -> latency of the throughputs that are known at every size."""
        latencies = {of: of_jobs(jobs) for of, jobs in self._jobs.items()}
        found: dict[str, dict[int, T]] = {}
        for key, throughput in self._throughputs.items():
            at: Mapping[str, Any] = throughput.details["at"]
            of_sizes = {
                int(size): latencies.get((of["quantity"], of["context"]), {})
                for size, of in at.items()
            }
            if all(key in of_size for of_size in of_sizes.values()):
                found[key] = {size: of_size[key] for size, of_size in of_sizes.items()}
        return found


def with_corrected_timings(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return measurements of a run, latencies and throughputs of its search by all jobs."""
    timings = Timings(measurements)
    latest = {quantity: timings.corrected(quantity) for quantity in (LATENCY, THROUGHPUT)}
    return [
        latest[m.quantity][m.key] if m.purpose == "search" and m.quantity in latest else m
        for m in measurements
    ]


def _is_of_job(measurement: Measurement) -> bool:
    timed = measurement.quantity in (LATENCY, BATCH_LATENCY)
    return timed and measurement.purpose in JOB_PURPOSES
