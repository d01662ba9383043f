"""``ort-cpu``: ONNX Runtime on this machine's processor."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.devices.base import Batch, Fingerprint, SharedOutputs
from hwsearch.devices.ort_installation import installed_builds, mixed_builds
from hwsearch.devices.spec import BATCH, DeviceFactory, parse_options, precision_option
from hwsearch.devices.worker_device import RUN_TIMEOUT_S, THREADS, CpuDevice
from hwsearch.machine import thread_limit

if TYPE_CHECKING:
    from hwsearch.devices.shared_inference import SharedSession


class OrtCpu(CpuDevice):
    """Times and runs models with ONNX Runtime's CPU provider; see `CpuDevice`."""

    def __init__(self, **options: Any) -> None:
        values = parse_options(DEVICE, options)
        super().__init__(DEVICE, values, "hwsearch.devices.ort_runtime:RUNTIME")
        self._shared: SharedSession | None = None

    def describe(self, version: str) -> Fingerprint:
        """Return runtime, provider and threads."""
        package = next(iter(installed_builds()), "onnxruntime")
        return {
            "runtime": f"{package} {version}",
            "provider": "CPUExecutionProvider",
            "provider options": "all graph optimisations, sequential, spinning on (default)"
            + (", a CPU for each thread" if self.threads > 1 else ""),
            "threads": self.threads,
        }

    def run_shared(
        self, models: Mapping[str, Path], batches: Iterable[Batch]
    ) -> Iterator[SharedOutputs]:
        """Run models, each CPU on its own samples; see `SharedInference.run_shared`."""
        from hwsearch.devices.shared_inference import SharedSession

        session = self._shared
        if session is None or not session.holds(models):
            if session is not None:
                session.unload()
            session = self._shared = SharedSession(
                self._running(), {"threads": 1}, thread_limit(), RUN_TIMEOUT_S
            )
            session.load(models, self.spec, self.precision)
        yield from session.run(models, batches)


def _missing() -> str | None:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'hwsearch[cpu]'"
    return mixed_builds()


DEVICE = DeviceFactory(
    name="ort-cpu",
    create=OrtCpu,
    available=_missing,
    options=(THREADS, BATCH, precision_option("fp32", "int8")),
)
