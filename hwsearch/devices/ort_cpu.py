"""``ort-cpu``: ONNX Runtime on this machine's processor."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hwsearch.devices.base import (
    Answers,
    DeviceFactory,
    DeviceOption,
    Fingerprint,
    OptionValue,
    Profile,
    canonical_spec,
)
from hwsearch.devices.fingerprint import choose_cpus, installed_version
from hwsearch.devices.ort_installation import ORT_PACKAGES, mixed_builds
from hwsearch.devices.worker_device import WorkerDevice
from hwsearch.errors import DeviceError
from hwsearch.machine import thread_limit, usable_cpus


class OrtCpu(WorkerDevice):
    """Times and runs models with ONNX Runtime's CPU provider; see `hwsearch.devices.base.Device`.

    What is timed has the threads that were asked for; other runs are as wide as the machine.

    Args:
        threads: Threads of a timed run, each on a CPU of its own where the system has affinity.
        batch: What a dynamic batch is fixed to when a model is timed.
        precision: Of the files that it takes: fp32 or int8.
    """

    def __init__(self, *, threads: int = 1, batch: int = 1, precision: str = "fp32") -> None:
        values: dict[str, OptionValue] = {
            "threads": threads,
            "batch": batch,
            "precision": precision,
        }
        spec, slug = canonical_spec(DEVICE.name, DEVICE.options, values)
        cpus = choose_cpus(threads)
        super().__init__(
            spec=spec,
            slug=slug,
            precision=precision,
            batch=batch,
            runtime="hwsearch.devices.ort_runtime:RUNTIME",
            timed={"threads": threads, "cpus": cpus},
            untimed={"threads": thread_limit()},
            cpus=cpus,
        )
        self._threads = threads

    def describe(self, version: str) -> Fingerprint:
        """Runtime, provider and threads."""
        package = installed_version(ORT_PACKAGES).split()[0]
        return {
            "runtime": f"{'onnxruntime' if package == 'none' else package} {version}",
            "provider": "CPUExecutionProvider",
            "provider options": "all graph optimisations, sequential, spinning on (default)"
            + (", a CPU for each thread" if self._threads > 1 else ""),
            "threads": self._threads,
        }

    def run_together(
        self, models: Mapping[str, Path], batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[Answers]:
        """Run models, each CPU on samples of its own; see `Sharing.run_together`."""
        return self._run_together(models, batches, {"threads": 1}, thread_limit())

    def profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models; see `hwsearch.devices.base.Profiling.profile`."""
        return self._profiled(models, runs)


def _missing() -> str | None:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'hwsearch[cpu]'"
    return mixed_builds()


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
        DeviceOption(
            name="precision",
            default="fp32",
            help="precision of the ONNX files: fp32 or int8",
            allowed=("fp32", "int8"),
        ),
    ),
)
