"""What the driver and NVML say of a GPU, with both of them scripted."""

import sys
import types

import pytest

from hwsearch.devices import nvidia


class Driver:
    """CUDA's driver library as far as it is asked."""

    def __init__(self, code=0, count=1):
        self.code, self.count = code, count

    def cuInit(self, flags):  # noqa: N802 - the library's name
        return self.code

    def cuDeviceGetCount(self, place):  # noqa: N802
        place._obj.value = self.count
        return 0


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (Driver(code=100), "cuInit gives error 100"),
        (Driver(count=0), "finds no GPU"),
        (Driver(), None),
    ],
)
def test_what_is_missing_is_said(monkeypatch, driver, reason):
    monkeypatch.setattr(nvidia.ctypes, "CDLL", lambda name: driver)
    found = nvidia.missing_gpu()
    assert (found is None) if reason is None else (reason in found and "nvidia-smi" in found)


def test_no_driver_is_said_with_where_to_get_it(monkeypatch):
    def none(name):
        raise OSError(name)

    monkeypatch.setattr(nvidia.ctypes, "CDLL", none)
    assert "there is no NVIDIA driver" in nvidia.missing_gpu()
    assert "https://www.nvidia.com/drivers" in nvidia.missing_gpu()


class Nvml(types.ModuleType):
    """NVML with scripted answers, one for each look."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, clocks=(1500,), reasons=(0,)):
        super().__init__("pynvml")
        self.__spec__ = types.SimpleNamespace()
        self.clocks, self.reasons = list(clocks), list(reasons)
        self.asked, self.open = [], 0

    def nvmlInit(self):  # noqa: N802
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self.asked.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return b"NVIDIA H100"

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "580.1"

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):  # noqa: N802
        return 1980

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        raise self.NVMLError("not supported")

    def nvmlDeviceGetClockInfo(self, handle, kind):  # noqa: N802
        return self.clocks.pop(0)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):  # noqa: N802
        return self.reasons.pop(0)


@pytest.fixture
def nvml(monkeypatch):
    def script(**answers):
        library = Nvml(**answers)
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return library

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return script


def test_a_gpu_is_described_as_far_as_nvml_tells(nvml):
    library = nvml()
    assert nvidia.gpu_fingerprint(0) == {
        "gpu": "NVIDIA H100",
        "driver": "580.1",
        "gpu clock limit": "1980 MHz",
        "gpu power limit": "unknown",
    }
    assert library.open == 0


def test_without_nvml_a_gpu_is_unknown_and_nothing_warns(monkeypatch):
    monkeypatch.setattr(nvidia, "find_spec", lambda name: None)
    assert set(nvidia.gpu_fingerprint(0).values()) == {"unknown"}
    watch = nvidia.ClockMonitor(0)
    watch.read()
    assert watch.warnings() == ()


@pytest.mark.parametrize(
    ("visible", "device_id", "asked"),
    [("", 1, 1), ("3,2", 1, 2), ("GPU-abc", 0, b"GPU-abc")],
)
def test_cudas_number_is_translated_to_nvmls(nvml, monkeypatch, visible, device_id, asked):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = nvml()
    nvidia.gpu_fingerprint(device_id)
    assert library.asked == [asked]


def watched(n):
    watch = nvidia.ClockMonitor(0)
    for _ in range(n):
        watch.read()
    return watch.warnings()


def test_a_steady_clock_warns_of_nothing(nvml):
    nvml(clocks=[1500] * 4, reasons=[0, 0x1, 0x2, 0x100])
    assert watched(4) == ()


def test_a_gpu_that_is_slowed_down_is_warned_of_with_the_cause(nvml):
    nvml(clocks=[1500] * 4, reasons=[0, 0x4, 0x4, 0x20])
    (warning,) = watched(4)
    assert "in 50% of the rounds by heat, its power limit" in warning
    assert "--lock-gpu-clocks" in warning


def test_a_clock_that_moves_is_warned_of(nvml):
    nvml(clocks=[1500, 1200, 1480], reasons=[0] * 3)
    (warning,) = watched(3)
    assert "between 1200 and 1500 MHz" in warning
    assert "--lock-gpu-clocks=1200" in warning
