"""What the devices on NVIDIA GPUs share: two times, caches of engines, and the GPU's clock."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsearch.devices.anchor import cache_folder
from hwsearch.devices.base import (
    DeviceFactory,
    DeviceOption,
    Fingerprint,
    Latency,
    canonical_spec,
)
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.nvidia import ClockWatch, gpu_fingerprint
from hwsearch.devices.protocol import MeasureSettings, Progress
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE
from hwsearch.devices.worker_device import WorkerDevice, with_warnings
from hwsearch.errors import DeviceError, InputError

_BUILD_S = 900.0


class GpuDevice(WorkerDevice):
    """A device on an NVIDIA GPU apart from its runtime; see `hwsearch.devices.base.Device`.

    Both times of a model are recorded: on the device, where inputs and outputs lie in the GPU's
    memory, and end to end, with both copied. The latency is the first unless ``transfers`` is
    "included": copies take the same time for all subnets of one input size, hide behind other
    work in most programs, and are the noisier part.

    Args:
        factory: The device's own.
        values: A value for each of its declared options: `gpu_options`.
        runtime: ``module:attribute`` of its runtime.
    """

    def __init__(self, factory: DeviceFactory, values: Mapping[str, Any], runtime: str) -> None:
        spec, slug = canonical_spec(factory.name, factory.options, values)
        super().__init__(
            spec=spec,
            slug=slug,
            precision=values["precision"],
            batch=values["batch"],
            runtime=runtime,
            timed={"device_id": values["device_id"]},
            untimed={"device_id": values["device_id"]},
            cpus=None,
            account=False,  # while the thread that asks waits for a CPU, the GPU works on
            objective={"excluded": ON_DEVICE, "included": END_TO_END}[values["transfers"]],
            load_s=_BUILD_S,
        )
        self.device_id: int = values["device_id"]
        self._transfers: str = values["transfers"]

    def describe(self, version: str) -> Fingerprint:
        """GPU, driver, the runtime's version and settings; a subclass names the runtime."""
        return {
            **gpu_fingerprint(self.device_id),
            "runtime": version,
            "tf32": "off",
            "transfers": self._transfers,
        }

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Time models and watch the GPU's clock; see `hwsearch.devices.base.Device.measure`."""
        watch = ClockWatch(self.device_id)

        def look(n_rounds: int, half_width: float) -> None:
            watch.look()
            if progress is not None:
                progress(n_rounds, half_width)

        measured = super().measure(models, seed=seed, settings=settings, progress=look)
        return with_warnings(measured, watch.warnings())

    def engines(self) -> Path:
        """Where engines and timings of kernels are kept for this fingerprint; made if missing.

        Raises:
            InputError: The cache folder cannot be written.
        """
        folder = cache_folder() / "engines" / f"{self.slug}-{digest(self.fingerprint())}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot keep engines in {folder}: {error}. "
                "Set HWSEARCH_CACHE to a folder that can be written."
            ) from error
        return folder


def gpu_options(precisions: Sequence[str]) -> tuple[DeviceOption, ...]:
    """The options that every device on a GPU declares.

    Args:
        precisions: Of the files that it can take, the default first.
    """
    return (
        DeviceOption(
            name="precision",
            default=precisions[0],
            help=f"precision of the ONNX files: {' or '.join(precisions)}",
            allowed=tuple(precisions),
            shown=True,
        ),
        DeviceOption(name="batch", default=1, help="batch size of a timed run"),
        DeviceOption(name="device_id", default=0, help="which GPU, as CUDA counts", low=0),
        DeviceOption(
            name="transfers",
            default="excluded",
            help="whether a latency has the copies to the GPU and back in it",
            allowed=("excluded", "included"),
        ),
    )
