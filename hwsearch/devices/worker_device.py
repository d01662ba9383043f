"""Base class of devices whose runtime runs in worker processes."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from hwsearch.devices.anchor import Baseline
from hwsearch.devices.base import Fingerprint, Latency, MeasureSettings, Profile, Progress
from hwsearch.devices.benchmark import Benchmark
from hwsearch.devices.fingerprint import choose_cpus, cpu_fingerprint, governor
from hwsearch.devices.model_check import refusal
from hwsearch.devices.runtime import RUN, Feeds, Options
from hwsearch.devices.spec import DeviceFactory, DeviceOption, canonical_spec
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from hwsearch.machine import cpu_quota, quota_text, thread_limit, throttled_periods, usable_cpus

_SESSIONS = 3
Result = TypeVar("Result", Latency, Profile)
THREADS = DeviceOption(
    name="threads", default=1, help="threads of a timed run", high=len(usable_cpus()), shown=True
)


class WorkerDevice(ABC):
    """Base class of devices with runtimes in worker processes; see `hwsearch.devices.base.Device`.

    A subclass names the runtime and its options, and implements `describe`.

    Args:
        factory: Entry point of the device.
        values: A value for each declared option, ``precision`` and ``batch`` among them.
        runtime: ``module:attribute`` of its `hwsearch.devices.runtime.Runtime`.
        timed: Options of the runtime for a model that is timed.
        untimed: Those for a model that is only run, None for the same.
        cpus: CPUs of timed runs, None for all.
        account: Whether the calling thread computes all, so that its CPU time is the running time.
        objective: Timing mode whose time is the latency.
        load_s: Additional time limit for loading a model.
        sessions: In how many sessions each model is timed; see `Benchmark`.
    """

    def __init__(
        self,
        factory: DeviceFactory,
        values: Mapping[str, Any],
        runtime: str,
        *,
        timed: Options,
        untimed: Options | None = None,
        cpus: Sequence[int] | None,
        account: bool = True,
        objective: str = RUN,
        load_s: float = 0.0,
        sessions: int = 1,
    ) -> None:
        self.spec, self.slug = canonical_spec(factory, values)
        _, self._anchor_slug = canonical_spec(factory, {**values, "batch": 1})
        self.precision: str = values["precision"]
        self._batch: int = values["batch"]
        self._runtime, self._objective = runtime, objective
        self._timed, self._untimed = timed, timed if untimed is None else untimed
        self._cpus, self._account, self._load_s = cpus, account, load_s
        self._sessions = sessions
        self._fingerprint: Fingerprint | None = None
        self._runner: Worker | None = None

    @abstractmethod
    def describe(self, version: str) -> Fingerprint:
        """Return the properties that affect latency besides processor, batch and precision.

        ``version`` is the runtime's in the worker process.
        """

    def fingerprint(self) -> Fingerprint:
        """Return processor, system, runtime and settings."""
        if self._fingerprint is None:
            with self._start() as worker:
                self._fingerprint = {
                    **cpu_fingerprint(),
                    "governor": governor((self._cpus or usable_cpus())[0]),
                    **self.describe(worker.version),
                    "affinity": worker.affinity,
                    "waiting for a cpu": worker.waiting,
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
        start, throttled_before = time.monotonic(), throttled_periods()
        results = self._in_one_process(
            models,
            settings or MeasureSettings(),
            self.options(timed=True),
            lambda benchmark: benchmark.latencies(seed, start, progress),
        )
        n_throttled = throttled_periods() - throttled_before
        return with_warnings(results, quota_warnings(self._timed.get("threads", 1), n_throttled))

    def options(self, *, timed: bool) -> Options:
        """Return the options of the runtime for a model that is timed, or only run."""
        return self._timed if timed else self._untimed

    def run(self, model: Path, batches: Iterable[Feeds]) -> Iterator[list[NDArray[Any]]]:
        """Run a model on all CPUs; see `hwsearch.devices.base.Device.run`.

        One worker process runs all models, in turns where needed; it is restarted after a crash.
        """
        if error := refusal(model, self.spec, self.precision):
            raise error
        worker, source = self._running(), str(model.absolute())
        number, _ = worker.call("load", source, None, self.options(timed=False))
        try:
            for batch in batches:
                yield worker.call("run", number, dict(batch))
        finally:
            if not worker.lost:
                worker.call("unload", number)

    def close(self) -> None:
        """End the worker process that runs models."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _running(self) -> Worker:
        """Return the worker process that runs models, started if necessary."""
        if self._runner is None or self._runner.lost:
            self.close()
            self._runner = Worker(None, self._runtime, account=False)
        return self._runner

    def _in_one_process(
        self,
        models: Mapping[str, Path],
        settings: MeasureSettings,
        options: Options,
        work: Callable[[Benchmark], Mapping[str, Result]],
    ) -> "dict[str, Result | DeviceError]":
        """Return the results of ``work`` on models in one worker process, or their errors.

        After a crash or hang, which is attributed to the model that was running, all starts again
        with the others. Where none was running there is a second try, as a process may be killed
        from outside.
        """
        baseline = Baseline(self._anchor_slug, self.fingerprint())
        done: dict[str, Result | DeviceError] = {
            name: error
            for name, path in models.items()
            if (error := refusal(path, self.spec, self.precision))
        }
        retried = False
        while waiting := {name: path for name, path in models.items() if name not in done}:
            benchmark = Benchmark(
                device=self.spec,
                baseline=baseline,
                models=waiting,
                settings=settings,
                options=options,
                batch=self._batch,
                objective=self._objective,
                load_s=self._load_s,
                sessions=self._sessions,
            )
            try:
                with self._start() as benchmark.worker:
                    done |= work(benchmark)
            except DeviceError as error:
                if benchmark.running is not None:
                    done[benchmark.running] = error
                elif retried:
                    where = f"{self.spec} fails at its start or on its own anchor model"
                    done |= dict.fromkeys(waiting, DeviceError(f"{where}: {error}"))
                else:
                    retried = True
            done |= benchmark.failed
        return {name: done[name] for name in models}

    def _start(self) -> Worker:
        return Worker(self._cpus, self._runtime, account=self._account)


class CpuDevice(WorkerDevice):
    """Base class of devices on this machine's processor, which can time the nodes of a model.

    A timed run has the given number of threads, each on its own CPU where the system supports
    affinity; other runs use all CPUs.
    """

    def __init__(
        self,
        factory: DeviceFactory,
        values: Mapping[str, Any],
        runtime: str,
        *,
        account: bool = True,
    ) -> None:
        self.threads: int = values["threads"]
        cpus = choose_cpus(self.threads)
        super().__init__(
            factory,
            values,
            runtime,
            timed={"threads": self.threads, "cpus": cpus},
            untimed={"threads": thread_limit()},
            cpus=cpus,
            account=account and self.threads == 1,  # else other threads compute too
            sessions=_SESSIONS,
        )

    def profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models; see `hwsearch.devices.base.Profiling.profile`."""
        options = {**self.options(timed=True), "profile": True}
        return self._in_one_process(
            models, MeasureSettings(), options, lambda benchmark: benchmark.profile(runs)
        )


def quota_warnings(threads: int, n_throttled: int) -> tuple[str, ...]:
    """Return a warning where a container's CPU quota slows timed runs; empty without one.

    ``n_throttled`` counts the periods in which the container was throttled meanwhile.
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
