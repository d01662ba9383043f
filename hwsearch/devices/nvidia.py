"""NVIDIA GPUs as reported by the driver and NVML, without CUDA's runtime."""

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from hwsearch.devices.base import Fingerprint

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_IDLE_OR_SET = 0x1 | 0x2 | 0x100  # idle, clocks set by the user, clocks of the display
_REASONS = {
    0x4: "its power limit",
    0x8: "its hardware slowing down",
    0x10: "another GPU that it keeps pace with",
    0x20: "heat",
    0x40: "heat",
    0x80: "the power supply",
}
_FROM_NVML = ("gpu", "driver", "gpu clock limit", "gpu power limit")
CLOCK_SPREAD_LIMIT = 0.05


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
    with _handle(device_id) as (nvml, handle):
        if nvml is None:
            return dict.fromkeys(_FROM_NVML, "unknown")
        top_mhz = _asked(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
        limit_mw = _asked(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return {
            "gpu": _text(_asked(nvml, nvml.nvmlDeviceGetName, handle)),
            "driver": _text(_asked(nvml, nvml.nvmlSystemGetDriverVersion)),
            "gpu clock limit": "unknown" if top_mhz is None else f"{top_mhz} MHz",
            "gpu power limit": "unknown" if limit_mw is None else f"{limit_mw / 1000:.0f} W",
        }


class ClockMonitor:
    """Reads a GPU's clock after every round, and warns of throttling and drift.

    ``device_id`` is in CUDA's order, which is that of the bus.
    """

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id
        self._reasons: Counter[str] = Counter()
        self._clocks_mhz: list[int] = []
        self._readings = 0

    def read(self) -> None:
        """Record the clock and the reasons of throttling."""
        with _handle(self._device_id) as (nvml, handle):
            if nvml is None:
                return
            self._readings += 1
            bits = _asked(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
            clock_mhz = _asked(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)
        held_down = bits & ~_IDLE_OR_SET
        self._reasons.update({text for bit, text in _REASONS.items() if held_down & bit})
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
            if (high - low) / high > CLOCK_SPREAD_LIMIT:
                found.append(
                    f"the GPU's clock moved between {low} and {high} MHz: hold it with "
                    f"'nvidia-smi --lock-gpu-clocks={low}' as long as you measure"
                )
        return tuple(found)


@contextmanager
def _handle(device_id: int) -> Iterator[tuple[Any, Any]]:
    """Yield NVML and its handle of a GPU; None twice where either is missing."""
    if find_spec("pynvml") is None:
        yield None, None
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None, None
        return
    try:
        try:
            handle = _find(pynvml, device_id)
        except (pynvml.NVMLError, IndexError):
            yield None, None
        else:
            yield pynvml, handle
    finally:
        pynvml.nvmlShutdown()


def _find(nvml: Any, device_id: int) -> Any:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    if not visible:
        return nvml.nvmlDeviceGetHandleByIndex(device_id)
    chosen = visible.split(",")[device_id].strip()
    if chosen.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(chosen))
    return nvml.nvmlDeviceGetHandleByUUID(chosen.encode())


def _asked(nvml: Any, ask: Any, *args: Any) -> Any:
    try:
        return ask(*args)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return value.decode() if isinstance(value, bytes) else str(value)
