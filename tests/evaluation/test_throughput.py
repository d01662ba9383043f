"""Throughputs by the latencies of batches, on a device without a clock."""

from types import SimpleNamespace

import pytest
from hwsearch_test_plugin.scripted_device import BATCH_EXPONENT, FakeDevice

from hwsearch.devices import load_device, measure, with_batch
from hwsearch.devices.throughput import best_throughput, check_batch_sizes
from hwsearch.errors import InputError
from hwsearch.kit.device import DeviceInfo, RemoteDevice
from tests.contracts.device_contract import QUICK
from tests.devices import tiny_models


def test_the_best_size_counts_with_its_interval():
    best = best_throughput({1: (2.0, 1.9, 2.1), 4: (4.0, 3.2, 5.0), 16: (20.0, 19.0, 21.0)})
    assert dict(best.at) == {1: 500.0, 4: 1000.0, 16: 800.0}
    assert (best.batch, best.value) == (4, 1000.0)
    assert (best.low, best.high) == (800.0, 1250.0)


@pytest.mark.parametrize("given", [(), (1, 1), (0, 4), (1.0,), (True,), ("4",), 4, "1,4", None])
def test_sizes_that_are_none_are_refused(given):
    with pytest.raises(InputError, match=r"batch_sizes is .*; give a list of different whole"):
        check_batch_sizes(given)
    assert check_batch_sizes([16, 1, 4]) == (1, 4, 16)


class TestMeasure:
    @pytest.fixture
    def files(self, tmp_path):
        return [tiny_models.conv(tmp_path / f"{name}.onnx") for name in "ab"]

    def test_has_the_throughput_at_every_size(self, files):
        device = FakeDevice(lambda name, path: {"0": 2.0, "1": 5.0}[name])
        table = measure(files, device, batch_sizes=[16, 1, 4])
        assert table["latency_ms"].tolist() == [2.0, 5.0]
        assert table["throughput_at_1"].tolist() == pytest.approx([500.0, 200.0])
        at_16 = [500.0 * 16 ** (1 - BATCH_EXPONENT), 200.0 * 16 ** (1 - BATCH_EXPONENT)]
        assert table["throughput"].tolist() == pytest.approx(at_16)
        assert table["best_batch"].tolist() == [16, 16]
        assert (table["throughput_low"] < table["throughput"]).all()
        assert (table["throughput_high"] > table["throughput"]).all()
        assert "throughput" not in measure(files, device)

    def test_the_devices_own_batch_is_timed_once(self, files):
        calls = []

        def latency_of(name, path):
            calls.append(name)
            return 1.0

        measure(files, FakeDevice(latency_of, batch=4), batch_sizes=[1, 4])
        assert len(calls) == 2 * len(files)

    def test_a_size_that_fails_is_named(self, tmp_path, monkeypatch):
        fixed = tiny_models.conv(tmp_path / "fixed.onnx", batch=1)
        monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
        (row,) = measure([fixed], batch_sizes=[1, 4], settings=QUICK).to_dict("records")
        assert row["latency_ms"] > 0
        assert row["throughput_at_1"] > 0
        assert row["throughput"] != row["throughput"]
        assert row["error"].startswith("at batch 4: input 'image' has shape [1, 3, 8, 8]: its ba")
        assert "export it with a dynamic batch" in row["error"]


class TestWithBatch:
    def test_is_the_same_device_otherwise(self):
        device = load_device("ort-cpu:threads=1,precision=int8")
        other = with_batch(device, 4)
        assert other.spec == "ort-cpu:threads=1,batch=4,precision=int8"
        assert other.fingerprint() == {**device.fingerprint(), "batch": 4}
        assert with_batch(other, 4) is other
        assert with_batch(other, 1).spec == device.spec

    def test_both_have_one_baseline(self, tmp_path, monkeypatch):
        """Else throughputs at two sizes would differ by what the machine did when it was taken."""
        monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
        file = tiny_models.conv(tmp_path / "a.onnx")
        table = measure([file], batch_sizes=[1, 4, 8], settings=QUICK)
        assert table["throughput"][0] > 0
        (baseline,) = (tmp_path / "cache" / "baselines").iterdir()
        assert baseline.name.startswith("ort-cpu-threads1-")

    def test_a_device_of_another_machine_is_asked_for_it_there(self):
        asked = []
        info = DeviceInfo("ort-cpu:threads=9", "slug", "fp32", {"cpu": "theirs", "batch": 1})
        measure_there = lambda info, *rest: asked.append(info) or {}  # noqa: E731
        device = RemoteDevice(info, measure_there, local=FakeDevice())
        with_batch(device, 4).measure({}, seed=0)
        assert asked[0].spec == "ort-cpu:threads=9,batch=4"
        assert asked[0].fingerprint == {"cpu": "theirs", "batch": 4}

    def test_a_device_without_the_option_is_refused(self):
        fixed = SimpleNamespace(spec="scripted", fingerprint=lambda: {"batch": 1})
        assert with_batch(fixed, 1) is fixed
        with pytest.raises(InputError, match="'scripted' times batches of 1 alone"):
            with_batch(fixed, 4)
