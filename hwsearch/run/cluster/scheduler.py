"""Schedulers, which evaluate proposals in this process or by jobs in a queue."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hwsearch.errors import EvaluationError, HwsearchError
from hwsearch.evaluation.evaluator import Values
from hwsearch.run.cluster.jobs import Job, SearchJobs
from hwsearch.space import Architecture

if TYPE_CHECKING:
    from hwsearch.run.cluster.ray_queue import RayQueue

Results = Mapping[str, Values | EvaluationError]


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
    """Evaluates architectures by jobs; results come in any order."""

    default_batch = 1

    def __init__(self, queue: "RayQueue", jobs: SearchJobs) -> None:
        self._queue, self._jobs = queue, jobs
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
            self._jobs.store(result)
            if result.failed is not None:
                self._finished[job.arch.key] = EvaluationError(result.failed)
            else:
                self._advance(job.arch, previous=job)
        finished, self._finished = self._finished, {}
        return finished

    def close(self) -> None:
        """Cancel the jobs that are not finished; a second call does nothing."""
        self._queue.close()

    def _advance(self, arch: Architecture, previous: Job | None = None) -> None:
        job = self._jobs.next_job(arch)
        if job is None:
            self._finished[arch.key] = self._jobs.values(arch)
        elif previous is not None and job.quantity == previous.quantity:
            raise HwsearchError(
                f"a worker was asked for {job.quantity} of {arch.key} and measured it in another "
                "context than this search; restart all workers with one version of hwsearch"
            )
        else:
            self._queue.submit(job)


Scheduler = InProcess | JobScheduler
