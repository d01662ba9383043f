"""``ort-cpu``: ONNX Runtime on this machine's processor, and which builds of it are installed."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.devices.base import Fingerprint, SharedOutputs
from hwsearch.devices.runtime import Feeds
from hwsearch.devices.spec import BATCH, DeviceFactory, parse_options, precision_option
from hwsearch.devices.worker_device import THREADS, CpuDevice
from hwsearch.machine import thread_limit
from hwsearch.quantization import DYNAMIC, FP32, INT4, INT8, MIXED

if TYPE_CHECKING:
    from hwsearch.devices.shared_inference import SharedSession

# Several packages have the same import name.
ORT_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


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
        self, models: Mapping[str, Path], batches: Iterable[Feeds]
    ) -> Iterator[SharedOutputs]:
        """Run models, each CPU on its own samples; see `SharedInference.run_shared`."""
        from hwsearch.devices.shared_inference import SharedSession

        if self._shared is None or not self._shared.holds(models):
            if self._shared is not None:
                self._shared.unload()
            self._shared = SharedSession(self._running(), models, self, thread_limit())
        yield from self._shared.run(models, batches)


def installed_builds(packages: Sequence[str] = ORT_PACKAGES) -> dict[str, str]:
    """Return the installed ones of packages, in this order, and their versions.

    Those of the first folder on the path alone: they hide the same module in later ones, such as
    in the packages of the environment that a virtual environment is based on.
    """
    found: dict[Path, dict[str, str]] = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            installed = metadata.distribution(package)
            found.setdefault(Path(str(installed.locate_file(""))), {})[package] = installed.version
    first = [place for place in map(Path, sys.path) if place in found]
    return found[next(iter([*first, *found]))] if found else {}


def build_problem(wanted: str | None = None, why: str = "") -> str | None:
    """Return the problem of the installed builds and its solution; None without one.

    Only one may be installed, and none other than ``wanted`` where that is given; ``why`` is the
    reason.
    """
    found = installed_builds()
    named = " and ".join(f"{name} {version}" for name, version in found.items())
    extra = "gpu" if "onnxruntime-gpu" in (wanted, *found) else "cpu"
    install = f"pip install 'hwsearch[{extra}]'"
    replace = f"pip uninstall -y {' '.join(found)} && {install}"
    if len(found) > 1:
        return (
            f"{named} are both installed, and both are imported as onnxruntime: the files of the "
            "one overwrite those of the other, so that providers are missing and it is unknown "
            f"which one runs. Keep one: {replace}"
        )
    if wanted is None or wanted in found:
        return None
    if not found:
        return f"{wanted} is not installed ({why}): {install}"
    return f"{wanted} is not installed ({why}); here is {named}, which must go first: {replace}"


def _missing() -> str | None:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'hwsearch[cpu]'"
    return build_problem()


DEVICE = DeviceFactory(
    name="ort-cpu",
    create=OrtCpu,
    available=_missing,
    options=(THREADS, BATCH, precision_option(FP32, INT8, MIXED)),
    mixes=(INT4, INT8, DYNAMIC, FP32),
)
