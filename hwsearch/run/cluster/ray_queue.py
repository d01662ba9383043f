"""Work on the nodes of a Ray cluster, which decides where and when it is done."""

from collections.abc import Callable
from typing import Any

import ray

from hwsearch.devices.frames import Arrays, Header
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.run.cluster import ray_node
from hwsearch.run.cluster.connection import (
    connect,
    declared_devices,
    lost,
    seats,
    task,
)
from hwsearch.run.cluster.jobs import Findings, Work, read_findings, write_work
from hwsearch.run.cluster.worker_context import check_reply
from hwsearch.run.progress import Progress

Do = Callable[[Any, Header, Arrays], tuple[Header, Arrays]]
_PATIENCE_S = 10.0


class RayExecutor:
    """Does work as Ray tasks; see `Executor`.

    A task takes the whole of a node. Latencies go to nodes that declare the device, anything to
    nodes that have joined by ``hwsearch worker``. The supernet's weights are put into Ray's
    object store, from which every node fetches them once.

    Args:
        spec: The device that latencies are measured on.
        parcel: What nodes need to know of the search.
        progress: Told when work waits for nodes that are not there.
        do: What runs on a node: takes the parcel and a message, and gives one.
    """

    whole = False

    def __init__(self, spec: str, parcel: Any, progress: Progress, do: Do = ray_node.do) -> None:
        connect()
        self._spec, self._progress = spec, progress
        self._parcel = ray.put(parcel)
        self._measure = task(do, "measure", spec)
        self._evaluate = task(do, "evaluate")
        self._open: dict[Any, Work] = {}
        self._said: set[str] = set()

    @property
    def size(self) -> int:
        """How many nodes there are, at least 1."""
        return max(1, seats())

    def submit(self, work: Work) -> None:
        """Take work; see `Executor.submit`."""
        chosen = self._measure if LATENCY in work.quantities else self._evaluate
        self._open[chosen.remote(self._parcel, *write_work(work))] = work

    def next(self) -> tuple[Work, Findings]:
        """Wait for a piece of work to end; see `Executor.next`."""
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(self._open), num_returns=1, timeout=_PATIENCE_S)
            if not done:
                self._look_around()
        (ref,) = done
        work = self._open.pop(ref)
        try:
            header, arrays = ray.get(ref)
        except ray.exceptions.RayError as error:
            return work, Findings(lost=lost(error))
        return work, read_findings(check_reply(header, "a node"), arrays)

    def close(self) -> None:
        """Give up what is not done; the nodes stay for others."""
        for ref in self._open:
            ray.cancel(ref, force=True)
        self._open.clear()

    def _look_around(self) -> None:
        """Say for whom work waits."""
        measuring = any(LATENCY in work.quantities for work in self._open.values())
        missing = ""
        if not seats():
            missing = "no worker is in the Ray cluster"
        elif measuring and self._spec not in declared_devices():
            missing = f"no node declares device {self._spec!r} any more"
        if missing and missing not in self._said:
            self._progress.note(f"{missing}: waiting for one to join by 'hwsearch worker'")
            self._said.add(missing)
