"""A device that brings a runtime of its own, and the two times of a device with a memory."""

import math
from pathlib import Path

import numpy as np
import pytest

from hwsearch.devices import DeviceFactory, MeasureSettings, measure
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE
from hwsearch.devices.worker_device import WorkerDevice
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from tests.devices import fake_runtime, tiny_models

SETTINGS = MeasureSettings(first_look=5, warmup_floor_s=0.0)


class Strange(WorkerDevice):
    def __init__(self, objective=ON_DEVICE):
        name = f"strange-{objective.replace(' ', '-')}"
        super().__init__(
            DeviceFactory(name=name, create=Strange, available=lambda: None),
            {"batch": 3, "precision": "fp32"},
            fake_runtime.NAME,
            timed={"memory": "1 KiB"},
            untimed={"memory": "2 KiB"},
            cpus=None,
            account=False,
            objective=objective,
        )

    def describe(self, version):
        return {"runtime": f"strange {version}", "objective": self._objective}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def files(tmp_path):
    return {name: tiny_models.conv(tmp_path / f"{name}.onnx") for name in ("m1", "m3", "large")}


@pytest.mark.parametrize(
    ("objective", "transfers", "expected_ms"),
    [(ON_DEVICE, "excluded", {"m1": 1.0, "m3": 3.0}), (END_TO_END, "included", {"m1": 1.5})],
)
def test_both_times_are_recorded_and_one_is_the_latency(files, objective, transfers, expected_ms):
    results = Strange(objective).measure(files, seed=0, settings=SETTINGS)
    for name, latency_ms in expected_ms.items():
        latency = results[name]
        assert latency.latency_ms == pytest.approx(latency_ms)
        assert latency.device_ms == pytest.approx(float(name[1]))
        assert latency.end_to_end_ms == pytest.approx(float(name[1]) + 0.5)
        assert latency.transfers == transfers
        assert latency.waited is None
        assert latency.inputs == "image float32[3, 3, 8, 8]"
    assert str(results["large"]) == "large is too large for 1 KiB"


def test_a_runtime_of_ones_own_runs_models_too(files):
    device = Strange()
    batches = [{"image": np.zeros((n, 3, 8, 8), np.float32)} for n in (1, 5)]
    assert [out.shape for (out,) in device.run(files["m3"], batches)] == [(1, 4), (5, 4)]
    with pytest.raises(DeviceError, match="2 KiB"):
        list(device.run(files["large"], batches))
    device.close()
    assert device.fingerprint()["runtime"] == "strange 7.0"
    assert device.fingerprint()["waiting for a cpu"] == "included"


def test_the_public_table_has_both_times(files):
    table = measure([files["m1"], files["large"]], Strange(), settings=SETTINGS)
    assert table["device_ms"][0] == pytest.approx(1.0)
    assert table["end_to_end_ms"][0] == pytest.approx(1.5)
    assert table["transfers"].tolist() == ["excluded", ""]
    assert math.isnan(table["device_ms"][1])


def test_a_runtime_that_does_not_exist_is_named():
    with pytest.raises(DeviceError, match="no_such_runtime"):
        Worker(None, "no_such_runtime:RUNTIME")
