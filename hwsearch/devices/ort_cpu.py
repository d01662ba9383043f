"""``ort-cpu``: ONNX Runtime on this machine's processor."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hwsearch.devices.base import DeviceFactory, DeviceOption, Fingerprint, Latency, canonical_spec
from hwsearch.devices.fingerprint import (
    choose_cpus,
    cpu_fingerprint,
    governor,
    installed_version,
    usable_cpus,
)
from hwsearch.devices.job import Job
from hwsearch.devices.protocol import MeasureSettings, Progress
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
_RUN_TIMEOUT_S = 600.0


class OrtCpu:
    """Times and runs models with ONNX Runtime's CPU provider; see `hwsearch.devices.base.Device`.

    Args:
        threads: Threads of a timed run, each on a CPU of its own where the system has affinity.
        batch: What a dynamic batch is fixed to when a model is timed.
    """

    def __init__(self, *, threads: int = 1, batch: int = 1) -> None:
        self._threads = threads
        self._batch = batch
        self.spec, self.slug = canonical_spec(
            DEVICE.name, DEVICE.options, {"threads": threads, "batch": batch}
        )
        self._cpus = choose_cpus(threads)
        self._fingerprint: Fingerprint | None = None
        self._runner: Worker | None = None
        self._numbers = itertools.count()

    def fingerprint(self) -> Fingerprint:
        """Processor, system, runtime and settings."""
        if self._fingerprint is None:
            with Worker(self._cpus) as worker:
                affinity, version, waiting = worker.affinity, worker.version, worker.waiting
            package = installed_version(_PACKAGES).split()[0]
            self._fingerprint = cpu_fingerprint() | {
                "governor": governor(self._cpus[0]),
                "runtime": f"{'onnxruntime' if package == 'none' else package} {version}",
                "provider": "CPUExecutionProvider",
                "provider options": "all graph optimisations, sequential, spinning on (default)",
                "threads": self._threads,
                "affinity": affinity,
                "waiting for a cpu": waiting,
                "batch": self._batch,
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
        job = Job(
            device=self.spec,
            slug=self.slug,
            fingerprint=self.fingerprint(),
            start=lambda: Worker(self._cpus),
            threads=self._threads,
            batch=self._batch,
        )
        return job.measure(
            models, seed=seed, settings=settings or MeasureSettings(), progress=progress
        )

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model on all CPUs; see `hwsearch.devices.base.Device.run`.

        One process serves all models, one after another or in turns; it is started again after a
        crash or hang.
        """
        if self._runner is None or self._runner.lost:
            self.close()
            self._runner = Worker(None)
        worker, number = self._runner, next(self._numbers)
        # Runs are as wide as the machine: the option `threads` fixes only what is timed.
        load = {"op": "load", "id": number, "path": str(model.absolute()), "batch": None}
        load["threads"] = len(usable_cpus())
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
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _missing() -> str | None:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'hwsearch[cpu]'"
    return None


DEVICE = DeviceFactory(
    name="ort-cpu",
    create=OrtCpu,
    available=_missing,
    options=(
        DeviceOption(
            name="threads",
            default=1,
            help="threads of a timed run",
            high=len(usable_cpus()),
            shown=True,
        ),
        DeviceOption(name="batch", default=1, help="batch size of a timed run"),
    ),
)
