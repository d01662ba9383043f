import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice, latency_by_size

from hwsearch.devices import device_names, load_device
from hwsearch.errors import DeviceError
from tests.contracts.device_contract import DeviceContract


def by_size_or_failure(name, path):
    if name == "broken":
        raise DeviceError("scripted to fail")
    return latency_by_size(name, path)


class TestScriptedDevice(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = FakeDevice(by_size_or_failure)
        yield device
        device.close()


def test_answers_what_the_script_says(tmp_path):
    device = FakeDevice(lambda name, path: {"a": 2.0, "b": 3.5, "c": float("nan")}[name])
    results = device.measure({name: tmp_path / name for name in "abc"}, seed=0)
    assert results["a"].latency_ms == 2.0
    assert results["b"].ratio == 3.5
    assert isinstance(results["c"], DeviceError)
    assert device.measure({"a": tmp_path}, seed=9)["a"].low_ms == results["a"].low_ms


def test_two_scripts_are_two_devices():
    assert FakeDevice(by_size_or_failure).fingerprint() != FakeDevice().fingerprint()


def test_can_be_registered_by_another_package(tmp_path, monkeypatch):
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hwsearch.devices]\nmine = elsewhere_device:DEVICE\n")
    (tmp_path / "elsewhere_device.py").write_text(
        "from hwsearch.devices import DeviceFactory\n"
        "from hwsearch_test_plugin.scripted_device import FakeDevice\n"
        "def create(): return FakeDevice(lambda name, path: 7.0, name='mine')\n"
        "DEVICE = DeviceFactory(name='mine', create=create, available=lambda: None)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" in device_names()
    device = load_device("mine")
    assert (device.spec, device.slug) == ("mine", "mine")
    assert device.measure({"x": tmp_path}, seed=0)["x"].latency_ms == 7.0
