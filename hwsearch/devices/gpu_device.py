"""Base class of the devices on NVIDIA GPUs: both latencies, engine caches, the GPU's clock."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hwsearch.devices.anchor import cache_folder
from hwsearch.devices.base import Fingerprint, Latency, MeasureSettings, Progress
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.nvidia import ClockMonitor, gpu_fingerprint
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE
from hwsearch.devices.spec import (
    BATCH,
    DeviceFactory,
    DeviceOption,
    OptionValue,
    parse_options,
    precision_option,
)
from hwsearch.devices.worker_device import WorkerDevice, with_warnings
from hwsearch.errors import DeviceError, InputError

_BUILD_S = 900.0


class GpuDevice(WorkerDevice):
    """Base class of devices on NVIDIA GPUs; see `WorkerDevice`.

    Two times are recorded: with inputs and outputs in the GPU's memory, and with both copied. The
    latency is the first unless ``transfers`` is "included": copies take the same time for all
    subnets of one input size, overlap with other work in most programs, and are noisier.
    """

    def __init__(
        self, factory: DeviceFactory, options: Mapping[str, OptionValue], runtime: str
    ) -> None:
        values = parse_options(factory, options)
        self.device_id: int = values["device_id"]
        self._transfers: str = values["transfers"]
        super().__init__(
            factory,
            values,
            runtime,
            timed={"device_id": self.device_id},
            untimed={"device_id": self.device_id},
            cpus=None,
            account=False,  # the GPU works on while the calling thread waits for a CPU
            objective={"excluded": ON_DEVICE, "included": END_TO_END}[self._transfers],
            load_s=_BUILD_S,
        )

    def describe(self, version: str) -> Fingerprint:
        """Return GPU, driver, the runtime's version and settings; a subclass names the runtime."""
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
        """Time models and monitor the GPU's clock; see `hwsearch.devices.base.Device.measure`."""
        monitor = ClockMonitor(self.device_id)

        def after_round(n_rounds: int, half_width: float) -> None:
            monitor.read()
            if progress is not None:
                progress(n_rounds, half_width)

        measured = super().measure(models, seed=seed, settings=settings, progress=after_round)
        return with_warnings(measured, monitor.warnings())

    def engines(self) -> Path:
        """Return the folder of engines and kernel timings of this fingerprint; made if missing."""
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
    """Return the options of every GPU device; the first precision is the default."""
    return (
        precision_option(*precisions, shown=True),
        BATCH,
        DeviceOption(name="device_id", default=0, help="which GPU, in CUDA's order", low=0),
        DeviceOption(
            name="transfers",
            default="excluded",
            help="whether a latency includes the copies to the GPU and back",
            allowed=("excluded", "included"),
        ),
    )
