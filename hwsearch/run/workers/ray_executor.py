"""Work on the nodes of a Ray cluster, which decides where and when it is done."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import ray

from hwsearch.run.measurements import LATENCY
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.run.workers import ray_node
from hwsearch.run.workers.ray_cluster import (
    connect,
    declared_devices,
    lost,
    seats,
    task,
)
from hwsearch.run.workers.ray_node import Parcel
from hwsearch.run.workers.work import Findings, Work, read_findings, write_work
from hwsearch.run.workers.workplace import check_reply, settings_of
from hwsearch.supernets.base import is_random
from hwsearch.supernets.imported import imported_names, load_imported

_PATIENCE_S = 10.0


class RayExecutor:
    """Does work as Ray tasks; see `Executor`.

    A task takes the whole of a node. Latencies go to nodes that declare the device, anything to
    nodes that have joined by ``hwsearch worker``. The supernet's weights are put into Ray's
    object store, from which every node fetches them once.

    Args:
        setup: The parts of the search.
        progress: Told when work waits for nodes that are not there.
    """

    whole = False

    def __init__(self, setup: Setup, progress: Progress) -> None:
        connect()
        self._spec, self._progress = setup.device.spec, progress
        self._parcel = ray.put(parcel_of(setup))
        self._measure = task(ray_node.do, "measure", self._spec)
        self._evaluate = task(ray_node.do, "evaluate")
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


def parcel_of(setup: Setup) -> Parcel:
    """Return what nodes need to know of a search, with weights that they cannot have."""
    settings, config = settings_of(setup), setup.config
    file: Path | None = None
    if config.checkpoint is not None and not is_random(config.checkpoint):
        file = Path(config.checkpoint)
    elif config.supernet in imported_names():
        family, file, _ = load_imported(config.supernet)
        settings["config"]["supernet"] = family
    weights = None if file is None or not file.is_file() else np.fromfile(file, np.uint8)
    return Parcel(
        name=uuid.uuid4().hex,
        settings=settings,
        weights=weights,
        suffix="" if file is None else file.suffix,
    )
