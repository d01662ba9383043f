"""What all devices share whose runtime works in processes of its own."""

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hwsearch.devices.base import Answers, Fingerprint, Latency, Profile
from hwsearch.devices.benchmark import Job
from hwsearch.devices.fingerprint import cpu_fingerprint, governor
from hwsearch.devices.model_check import wrong_precision, wrong_precisions
from hwsearch.devices.protocol import MeasureSettings, Progress
from hwsearch.devices.runtime import RUN, Options
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from hwsearch.machine import cpu_quota, quota_text, throttled_periods, usable_cpus

if TYPE_CHECKING:
    from hwsearch.devices.shared_inference import Together, Walked

_RUN_TIMEOUT_S = 900.0


class WorkerDevice(ABC):
    """A device apart from what is its own; see `hwsearch.devices.base.Device`.

    A subclass says what it is through the constructor and gives `describe`.

    Args:
        spec: The device as written down.
        slug: The same for file names.
        precision: Of the files that it takes.
        batch: What a dynamic batch is fixed to when a model is timed.
        runtime: ``module:attribute`` of its `hwsearch.devices.runtime.Runtime`.
        timed: What the runtime is told about a model that is timed.
        untimed: What it is told about a model that is only run.
        cpus: The CPUs of timed runs, None for all.
        account: Whether a run is the work of the thread that asks for it, so that its waiting for
            a CPU can be taken out.
        objective: The way of running whose time is the latency.
        load_s: How much longer than an answer loading a model may take.
    """

    def __init__(
        self,
        *,
        spec: str,
        slug: str,
        precision: str,
        batch: int,
        runtime: str,
        timed: Options,
        untimed: Options,
        cpus: Sequence[int] | None,
        account: bool = True,
        objective: str = RUN,
        load_s: float = 0.0,
    ) -> None:
        self.spec, self.slug, self.precision = spec, slug, precision
        self._batch, self._runtime, self._objective = batch, runtime, objective
        self._timed, self._untimed = timed, untimed
        self._cpus, self._account, self._load_s = cpus, account, load_s
        self._fingerprint: Fingerprint | None = None
        self._runner: Worker | None = None
        self._numbers = itertools.count()
        self._together: Together | None = None

    @abstractmethod
    def describe(self, version: str) -> Fingerprint:
        """What decides a latency besides the processor, batch and precision.

        Args:
            version: The runtime's, as the worker process found it.
        """

    def fingerprint(self) -> Fingerprint:
        """Processor, system, runtime and settings."""
        if self._fingerprint is None:
            with self._start() as worker:
                affinity, version, waiting = worker.affinity, worker.version, worker.waiting
            self._fingerprint = {
                **cpu_fingerprint(),
                "governor": governor((self._cpus or usable_cpus())[0]),
                **self.describe(version),
                "affinity": affinity,
                "waiting for a cpu": waiting,
                "batch": self._batch,
                "precision": self.precision,
            }
        return dict(self._fingerprint)

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Time models; see `hwsearch.devices.base.Device.measure`."""
        wrong = wrong_precisions(models, self.spec, self.precision)
        given = {name: path for name, path in models.items() if name not in wrong}
        throttled_before = throttled_periods()
        measured = self.job().measure(
            given, seed=seed, settings=settings or MeasureSettings(), progress=progress
        )
        n_throttled = throttled_periods() - throttled_before
        warnings = quota_warnings(self._timed.get("threads", 1), n_throttled)
        results = {name: wrong[name] if name in wrong else measured[name] for name in models}
        return with_warnings(results, warnings)

    def options(self, *, timed: bool) -> Options:
        """What the runtime is told about a model that is timed, or only run."""
        return self._timed if timed else self._untimed

    def job(self) -> Job:
        """What its measuring jobs share; it times files of any precision."""
        return Job(
            device=self.spec,
            slug=self.slug,
            fingerprint=self.fingerprint(),
            start=self._start,
            options=self.options(timed=True),
            batch=self._batch,
            objective=self._objective,
            load_s=self._load_s,
        )

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model on all CPUs; see `hwsearch.devices.base.Device.run`.

        One process serves all models, one after another or in turns; it is started again after a
        crash or hang.
        """
        if wrong := wrong_precision(model, self.spec, self.precision):
            raise wrong
        worker, number = self._running(), next(self._numbers)
        load = {"op": "load", "id": number, "path": str(model.absolute()), "batch": None}
        load["options"] = dict(self.options(timed=False))
        worker.request(load, timeout_s=_RUN_TIMEOUT_S)
        try:
            for batch in batches:
                header = {"op": "run", "id": number, "names": list(batch)}
                yield worker.request(header, list(batch.values()), timeout_s=_RUN_TIMEOUT_S)[1]
        finally:
            if not worker.lost:
                worker.request({"op": "unload", "id": number}, timeout_s=_RUN_TIMEOUT_S)

    def close(self) -> None:
        """End the process that runs models."""
        self._together = None
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _run_together(
        self,
        models: Mapping[str, Path],
        batches: Iterable[Mapping[str, NDArray[Any]]],
        options: Options,
        threads: int,
    ) -> Iterator[Answers]:
        from hwsearch.devices.shared_inference import Together

        together = self._together
        if together is None or not together.holds(models):
            self._forget()
            together = Together(self._running(), self._numbers, options, threads, _RUN_TIMEOUT_S)
            self._together = together
            together.load(models, wrong_precisions(models, self.spec, self.precision))
        # One batch is prepared and sent while the one before it is being worked on.
        ahead: deque[Walked] = deque()
        for batch in batches:
            ahead.append(together.ask(models, batch))
            if len(ahead) > 1:
                yield together.answers(ahead.popleft())
        for walked in ahead:
            yield together.answers(walked)

    def _forget(self) -> None:
        """Unload what was run together; it is kept for those who ask for it again."""
        if self._together is not None:
            self._together.unload()
            self._together = None

    def _running(self) -> Worker:
        """Return the process that runs models, started where there is none."""
        if self._runner is None or self._runner.lost:
            self.close()
            self._runner = Worker(None, self._runtime, account=False)
        return self._runner

    def _profiled(self, models: Mapping[str, Path], runs: int) -> dict[str, Profile | DeviceError]:
        from hwsearch.devices.profiling import profile_models

        wrong = wrong_precisions(models, self.spec, self.precision)
        given = {name: path for name, path in models.items() if name not in wrong}
        profiled = profile_models(self.job(), given, runs=runs)
        return {name: wrong[name] if name in wrong else profiled[name] for name in models}

    def _start(self) -> Worker:
        return Worker(self._cpus, self._runtime, account=self._account)


def quota_warnings(threads: int, n_throttled: int) -> tuple[str, ...]:
    """Return a warning where a container's CPU quota slows timed runs; empty without one.

    Args:
        threads: Threads of a timed run.
        n_throttled: Periods of the measurement in which the container was throttled.
    """
    quota = cpu_quota()
    if quota is None or (threads <= quota and not n_throttled):
        return ()
    seen = f"was throttled in {n_throttled} periods" if n_throttled else "is throttled"
    return (
        f"the container may use {quota_text()} and {seen} while {threads} "
        f"thread{'s' if threads > 1 else ''} ran: latencies hold the pauses; give the container "
        "more CPU time (docker run --cpus, Kubernetes resources.limits.cpu) or use fewer threads",
    )


def with_warnings(
    results: Mapping[str, Latency | DeviceError], warnings: Sequence[str]
) -> dict[str, Latency | DeviceError]:
    """Add warnings to every latency."""
    return {
        name: replace(result, warnings=(*result.warnings, *warnings))
        if isinstance(result, Latency)
        else result
        for name, result in results.items()
    }
