"""A queue of jobs on the nodes of a Ray cluster."""

from collections.abc import Callable
from typing import Any

import ray

from hwsearch.errors import DeviceError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.run.cluster.connection import connect, declared_devices, n_nodes, remote, result_of
from hwsearch.run.cluster.jobs import Job, JobResult
from hwsearch.run.cluster.worker_context import run_job
from hwsearch.run.progress import Progress

_PATIENCE_S = 10.0


class RayQueue:
    """Runs each job as a Ray task that occupies a node; Ray repeats a lost one once.

    Latencies go to nodes that declare the device, other jobs to any. ``spec``, the description of
    the search, is put into Ray's object store; every node fetches it once.
    """

    def __init__(
        self,
        device: str,
        spec: Any,
        progress: Progress,
        function: Callable[..., JobResult] = run_job,
    ) -> None:
        connect()
        self._device, self._progress = device, progress
        self._spec = ray.put(spec)
        self._measure = remote(function, "measure", device)
        self._score = remote(function, "score")
        self._open: dict[Any, Job] = {}
        self._noted: set[str] = set()

    @property
    def n_workers(self) -> int:
        """Return the number of nodes."""
        return n_nodes()

    def submit(self, job: Job) -> None:
        """Append a job."""
        function = self._measure if job.quantity == LATENCY else self._score
        arguments = (job.arch.mapping, job.quantity, job.pace)
        self._open[function.remote(self._spec, *arguments)] = job

    def next(self) -> tuple[Job, JobResult]:
        """Wait until a job ends; raise what `hwsearch.run.cluster.connection.result_of` raises."""
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(self._open), num_returns=1, timeout=_PATIENCE_S)
            if not done:
                self._note_missing_nodes()
        job = self._open.pop(done[0])
        try:
            return job, result_of(done[0])
        except DeviceError as error:
            return job, JobResult(failed=str(error))

    def close(self) -> None:
        """Cancel all jobs; the nodes stay in the cluster."""
        for ref in self._open:
            ray.cancel(ref, force=True)
        self._open.clear()

    def _note_missing_nodes(self) -> None:
        missing = ""
        if not n_nodes():
            missing = "no worker is in the Ray cluster"
        elif (
            any(job.quantity == LATENCY for job in self._open.values())
            and self._device not in declared_devices()
        ):
            missing = f"no node declares device {self._device!r} any more"
        if missing and missing not in self._noted:
            self._progress.note(f"{missing}: waiting for one to join by 'hwsearch worker'")
            self._noted.add(missing)
