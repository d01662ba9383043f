"""Base class of devices whose runtime runs in worker processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hwsearch.devices.anchor import Baseline
from hwsearch.devices.base import (
    Batch,
    Fingerprint,
    Latency,
    MeasureSettings,
    Profile,
    Progress,
)
from hwsearch.devices.benchmark import Benchmark
from hwsearch.devices.fingerprint import cpu_fingerprint, digest, governor
from hwsearch.devices.model_check import refusal
from hwsearch.devices.runtime import RUN, Options
from hwsearch.devices.spec import DeviceFactory, DeviceOption, canonical_spec
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from hwsearch.machine import cpu_quota, quota_text, throttled_periods, usable_cpus

RUN_TIMEOUT_S = 900.0


class WorkerDevice(ABC):
    """Base class of devices with runtimes in worker processes; see `hwsearch.devices.base.Device`.

    A subclass names the runtime and its options, and implements `describe`.

    Args:
        factory: Entry point of the device.
        values: A value for each declared option, ``precision`` and ``batch`` among them.
        runtime: ``module:attribute`` of its `hwsearch.devices.runtime.Runtime`.
        timed: Options of the runtime for a model that is timed.
        untimed: Options of the runtime for a model that is only run.
        cpus: CPUs of timed runs, None for all.
        account: Whether the calling thread computes, so that its waiting can be subtracted.
        objective: Timing mode whose time is the latency.
        load_s: Additional time limit for loading a model.
    """

    def __init__(
        self,
        factory: DeviceFactory,
        values: Mapping[str, Any],
        runtime: str,
        *,
        timed: Options,
        untimed: Options,
        cpus: Sequence[int] | None,
        account: bool = True,
        objective: str = RUN,
        load_s: float = 0.0,
    ) -> None:
        self.spec, self.slug = canonical_spec(factory.name, factory.options, values)
        self.precision: str = values["precision"]
        self._batch: int = values["batch"]
        self._runtime, self._objective = runtime, objective
        self._timed, self._untimed = timed, untimed
        self._cpus, self._account, self._load_s = cpus, account, load_s
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
        throttled_before = throttled_periods()
        results = self.benchmark().measure(
            models, seed=seed, settings=settings or MeasureSettings(), progress=progress
        )
        n_throttled = throttled_periods() - throttled_before
        return with_warnings(results, quota_warnings(self._timed.get("threads", 1), n_throttled))

    def options(self, *, timed: bool) -> Options:
        """Return the options of the runtime for a model that is timed, or only run."""
        return self._timed if timed else self._untimed

    def benchmark(self) -> Benchmark:
        """Return the settings of its benchmarks."""
        fingerprint = self.fingerprint()
        return Benchmark(
            device=self.spec,
            precision=self.precision,
            fingerprint=digest(fingerprint),
            baseline=Baseline(self.slug, fingerprint),
            start=self._start,
            options=self.options(timed=True),
            batch=self._batch,
            objective=self._objective,
            load_s=self._load_s,
        )

    def run(self, model: Path, batches: Iterable[Batch]) -> Iterator[list[NDArray[Any]]]:
        """Run a model on all CPUs; see `hwsearch.devices.base.Device.run`.

        One worker process runs all models, in turns where needed; it is restarted after a crash.
        """
        if error := refusal(model, self.spec, self.precision):
            raise error
        worker, options = self._running(), self.options(timed=False)
        source = str(model.absolute())
        number, _ = worker.call("load", source, None, options, timeout_s=RUN_TIMEOUT_S)
        try:
            for batch in batches:
                yield worker.call("run", number, dict(batch), timeout_s=RUN_TIMEOUT_S)
        finally:
            if not worker.lost:
                worker.call("unload", number, timeout_s=RUN_TIMEOUT_S)

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

    def _start(self) -> Worker:
        return Worker(self._cpus, self._runtime, account=self._account)


class CpuDevice(WorkerDevice):
    """Base class of devices on this machine's processor, which can time the nodes of a model."""

    def profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models; see `hwsearch.devices.base.Profiling.profile`."""
        return self.benchmark().profile(models, runs=runs)


def threads_option() -> DeviceOption:
    """Return the option for the threads of a timed run."""
    n_cpus = len(usable_cpus())
    text = "threads of a timed run"
    return DeviceOption(name="threads", default=1, help=text, high=n_cpus, shown=True)


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
