"""NVIDIA GPUs: base class of their devices, and what the driver and NVML report of them."""

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwsearch.devices.anchor import cache_folder
from hwsearch.devices.base import Fingerprint, Latency, MeasureSettings, Progress
from hwsearch.devices.fingerprint import digest
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

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_SLOWED_BY = {  # other bits: idle, clocks set by the user, clocks of the display
    0x4: "its power limit",
    0x8: "its hardware slowing down",
    0x10: "another GPU that it keeps pace with",
    0x20: "heat",
    0x40: "heat",
    0x80: "the power supply",
}
_CLOCK_SPREAD_LIMIT = 0.05
_BUILD_S = 900.0


def gpu_options(*precisions: str) -> tuple[DeviceOption, ...]:
    """Return the options of a device on a GPU that takes files of these precisions."""
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
            cpus=None,
            account=False,  # the GPU works on while the calling thread waits for a CPU
            objective={"excluded": ON_DEVICE, "included": END_TO_END}[self._transfers],
            load_s=_BUILD_S,
        )

    def describe_gpu(self) -> Fingerprint:
        """Return GPU, driver and settings, to which `describe` adds the runtime."""
        return {**gpu_fingerprint(self.device_id), "tf32": "off", "transfers": self._transfers}

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


def missing_gpu() -> str | None:
    """Return why there is no usable NVIDIA GPU, None where there is one."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return (
            f"there is no NVIDIA driver ({_DRIVER} cannot be loaded): install it from "
            "https://www.nvidia.com/drivers, and see that nvidia-smi lists the GPU"
        )
    if code := driver.cuInit(0):
        return (
            f"the NVIDIA driver does not start (cuInit gives error {code}): see what nvidia-smi "
            "says; in a container, give it the GPU"
        )
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        return (
            "the NVIDIA driver finds no GPU: see that nvidia-smi lists one and that "
            f"CUDA_VISIBLE_DEVICES ({os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}) names it"
        )
    return None


def gpu_fingerprint(device_id: int) -> Fingerprint:
    """Describe GPU ``device_id`` (CUDA's order, by bus), its driver and limits.

    Values that NVML does not report are "unknown".
    """
    name, driver, top_mhz, limit_mw = _asked(
        device_id,
        lambda nvml, gpu: nvml.nvmlDeviceGetName(gpu),
        lambda nvml, _: nvml.nvmlSystemGetDriverVersion(),
        lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
        lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu),
    )
    return {
        "gpu": _text(name),
        "driver": _text(driver),
        "gpu clock limit": "unknown" if top_mhz is None else f"{top_mhz} MHz",
        "gpu power limit": "unknown" if limit_mw is None else f"{limit_mw / 1000:.0f} W",
    }


class ClockMonitor:
    """Reads a GPU's clock after every round, and warns of throttling and drift."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id
        self._reasons: Counter[str] = Counter()
        self._clocks_mhz: list[int] = []
        self._readings = 0

    def read(self) -> None:
        """Record the clock and the reasons of throttling."""
        bits, clock_mhz = _asked(
            self._device_id,
            lambda nvml, gpu: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
            lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        )
        self._readings += 1
        self._reasons.update({text for bit, text in _SLOWED_BY.items() if (bits or 0) & bit})
        if clock_mhz:
            self._clocks_mhz.append(clock_mhz)

    def warnings(self) -> tuple[str, ...]:
        """Return reasons for doubt and remedies, one sentence each."""
        found = []
        if self._reasons:
            reasons = ", ".join(sorted(self._reasons))
            share = max(self._reasons.values()) / self._readings
            found.append(
                f"the GPU was slowed down in {share:.0%} of the rounds by {reasons}: cool it, or "
                "hold its clock lower with 'nvidia-smi --lock-gpu-clocks=MHZ'"
            )
        if self._clocks_mhz:
            low, high = min(self._clocks_mhz), max(self._clocks_mhz)
            if (high - low) / high > _CLOCK_SPREAD_LIMIT:
                found.append(
                    f"the GPU's clock moved between {low} and {high} MHz: hold it with "
                    f"'nvidia-smi --lock-gpu-clocks={low}' as long as you measure"
                )
        return tuple(found)


def _asked(device_id: int, *questions: Callable[[Any, Any], Any]) -> list[Any]:
    """Call functions of NVML and its handle of a GPU; an answer is None where it has none."""
    answers: list[Any] = [None] * len(questions)
    if find_spec("pynvml") is None:
        return answers
    import pynvml

    with ExitStack() as stack, suppress(pynvml.NVMLError, IndexError):
        pynvml.nvmlInit()
        stack.callback(pynvml.nvmlShutdown)
        gpu = _find(pynvml, device_id)
        for index, question in enumerate(questions):
            with suppress(pynvml.NVMLError):
                answers[index] = question(pynvml, gpu)
    return answers


def _find(nvml: Any, device_id: int) -> Any:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    chosen = visible.split(",")[device_id].strip() if visible else str(device_id)
    if chosen.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(chosen))
    return nvml.nvmlDeviceGetHandleByUUID(chosen.encode())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "unknown")
