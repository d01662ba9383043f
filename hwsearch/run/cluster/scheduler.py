"""Scheduling of evaluations: in this process, or as jobs on the nodes of a Ray cluster."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hwsearch.devices import Device
from hwsearch.devices.spec import split_name
from hwsearch.errors import EvaluationError, HwsearchError, InputError
from hwsearch.evaluation.evaluator import Evaluator, Values
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.kit.device import DEVICE
from hwsearch.quantities import quantity_of
from hwsearch.run.progress import Progress
from hwsearch.run.settings import Workers, check_workers
from hwsearch.run.setup import Setup
from hwsearch.space import Architecture
from hwsearch.trials import Measurement

if TYPE_CHECKING:
    from hwsearch.run.cluster.connection import RayQueue

Results = Mapping[str, Values | EvaluationError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A measurement by a worker process.

    ``pace`` is (highest, known) of the search's `Pace`, ``bridges`` are timed with ``arch``, and
    ``known`` are its latencies that are not measured again. A job of a timed quantity measures all
    that the device measures in one search.
    """

    arch: Architecture
    quantity: str
    pace: tuple[float, int] = (0.0, 0)
    bridges: tuple[Architecture, ...] = ()
    known: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """New measurements, or the reason why the architecture cannot be evaluated."""

    measurements: tuple[Measurement, ...] = ()
    failed: str | None = None


def is_timed(quantity: str) -> bool:
    """Return whether the device measures a quantity."""
    return quantity_of(quantity).source == "device"


class InProcess:
    """Evaluates batches in this process, each when its results are requested.

    Attributes:
        capacity: A batch is proposed while fewer architectures than this are open.
        default_batch: Number of architectures per proposal; None for the tactic's batch, whose
            subnets share prefixes.
    """

    n_workers = capacity = 1
    default_batch = None

    def __init__(self, evaluate: Callable[[Sequence[Architecture]], Results]) -> None:
        self._evaluate = evaluate
        self._batches: deque[Sequence[Architecture]] = deque()

    def start(self, archs: Sequence[Architecture]) -> None:
        """Append a batch of architectures."""
        if archs:
            self._batches.append(archs)

    def finished(self) -> Results:
        """Evaluate the oldest batch; return key -> values or failure."""
        return self._evaluate(self._batches.popleft())

    def close(self) -> None:
        """Drop the batches that are not evaluated."""
        self._batches.clear()


class JobScheduler:
    """Evaluates architectures by jobs, one per missing quantity; results come in any order."""

    default_batch = 1

    def __init__(self, queue: "RayQueue", evaluator: Evaluator, quantities: Sequence[str]) -> None:
        self._queue, self._evaluator = queue, evaluator
        self._quantities = sorted(quantities, key=lambda each: not is_timed(each))
        self._finished: dict[str, Values | EvaluationError] = {}

    @property
    def n_workers(self) -> int:
        """Return the number of jobs that run at a time, at least 1."""
        return max(1, self._queue.n_workers)

    @property
    def capacity(self) -> int:
        """Return one more than the workers, so that none is idle during the next proposal."""
        n_workers = self.n_workers
        return n_workers + (n_workers > 1)

    def start(self, archs: Sequence[Architecture]) -> None:
        """Submit the first job of each architecture; known values are not measured again."""
        for arch in archs:
            self._advance(arch)

    def finished(self) -> Results:
        """Wait until architectures are evaluated; return key -> values or failure."""
        while not self._finished:
            job, result = self._queue.next()
            self._store(result.measurements)
            if result.failed is not None:
                self._finished[job.arch.key] = EvaluationError(result.failed)
            else:
                self._advance(job.arch, previous=job.quantity)
        finished, self._finished = self._finished, {}
        return finished

    def close(self) -> None:
        """Cancel the jobs that are not finished; a second call does nothing."""
        self._queue.close()

    def _advance(self, arch: Architecture, previous: str | None = None) -> None:
        known, pace = self._evaluator.known_values(arch, self._quantities), self._evaluator.pace
        missing = next((each for each in self._quantities if each not in known), None)
        if missing is None:
            self._finished[arch.key] = known
        elif missing == previous:
            raise HwsearchError(
                f"a worker was asked for {missing} of {arch.key} and measured it in another "
                "context than this search; restart all workers with one version of hwsearch"
            )
        else:
            job = Job(arch=arch, quantity=missing, pace=(pace.highest, pace.known))
            if is_timed(missing):
                latencies, bridges = self._evaluator.timing_job(arch, self._quantities)
                job = replace(job, bridges=tuple(bridges), known=tuple(latencies))
            self._queue.submit(job)

    def _store(self, measurements: Sequence[Measurement]) -> None:
        """Store what a worker measured; it counts its timing jobs from 0."""
        net, store = self._evaluator.net, self._evaluator.store
        measurements = self._evaluator.timings.renumbered(measurements)
        store.add_all(measurements)
        own = (m for m in measurements if (m.quantity, m.purpose) == (LATENCY, "search"))
        for latency in own:
            archs = net.space.architectures([store.trial(latency.key).choices])
            self._evaluator.pace.believe(latency.value, int(net.exact("macs", archs)[0]))


Scheduler = InProcess | JobScheduler


def cluster_device(workers: Workers, spec: str) -> Device | None:
    """Return the device of a cluster's node; None for this process and for ``kit:FILE``.

    Raises:
        InputError: Ray is not installed.
    """
    if not check_workers(workers):
        return None
    if find_spec("ray") is None:
        raise InputError("workers 'ray' need Ray: pip install 'hwsearch[ray]'")
    if split_name(spec)[0] == DEVICE.name:
        return None
    from hwsearch.run.cluster.connection import device_on_node

    return device_on_node(spec)


def make_scheduler(
    workers: Workers, setup: Setup, evaluator: Evaluator, progress: Progress
) -> Scheduler:
    """Return the scheduler that evaluates the proposals of a search."""
    if not check_workers(workers):
        return InProcess(lambda archs: evaluator.search_values(archs, setup.measured))
    from hwsearch.run.cluster.connection import RayQueue
    from hwsearch.run.cluster.worker_context import search_spec

    queue = RayQueue(setup.device.spec, search_spec(setup), progress)
    return JobScheduler(queue, evaluator, setup.measured)
