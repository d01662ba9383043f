"""Evaluation jobs: one quantity of one architecture, and the measurements that result."""

from collections.abc import Sequence
from dataclasses import dataclass

from hwsearch.evaluation.evaluator import Evaluator, Values
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.space import Architecture
from hwsearch.trials import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A measurement by a worker process; ``pace`` is (highest, known) of the search's `Pace`."""

    arch: Architecture
    quantity: str
    pace: tuple[float, int] = (0.0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """New measurements, or the reason why the architecture cannot be evaluated."""

    measurements: tuple[Measurement, ...] = ()
    failed: str | None = None


class SearchJobs:
    """Splits evaluations into jobs, latency first, and stores their results."""

    def __init__(self, evaluator: Evaluator, quantities: Sequence[str]) -> None:
        self._evaluator = evaluator
        self._quantities = sorted(quantities, key=lambda quantity: quantity != LATENCY)

    def next_job(self, arch: Architecture) -> Job | None:
        """Return the next job of an architecture; None where no quantity is missing."""
        known, pace = self.values(arch), self._evaluator.pace
        missing = next((each for each in self._quantities if each not in known), None)
        if missing is None:
            return None
        return Job(arch=arch, quantity=missing, pace=(pace.highest, pace.known))

    def store(self, result: JobResult) -> None:
        """Store the measurements of a job."""
        net, store = self._evaluator.net, self._evaluator.store
        store.add_all(result.measurements)
        for latency in (m for m in result.measurements if m.quantity == LATENCY):
            archs = net.space.architectures([store.trial(latency.key).choices])
            self._evaluator.pace.believe(latency.value, int(net.exact("macs", archs)[0]))

    def values(self, arch: Architecture) -> Values:
        """Return the known values of an architecture."""
        return self._evaluator.known_values(arch, self._quantities)
