"""The devices on NVIDIA GPUs: their own half here with a fake runtime, all of them on hardware."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hwsearch.devices import MeasureSettings, load_device, load_factory
from hwsearch.devices.nvidia import ClockMonitor
from hwsearch.devices.spec import parse_options, split_spec
from hwsearch.errors import InputError
from tests.contracts.device_contract import QUICK, DeviceContract
from tests.devices import fake_runtime, tiny_models

NAMES = ("ort-cuda", "ort-tensorrt", "tensorrt")
SETTINGS = MeasureSettings(first_look=5, warmup_floor_s=0.0)


class OnHardware(DeviceContract):
    SPEC = ""

    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = load_device(cls.SPEC)
        yield device
        device.close()

    def test_both_times_are_told(self, results, good):
        for name in good:
            assert results[name].transfers in ("excluded", "included")
            assert results[name].end_to_end_ms > 0
            assert results[name].device_ms > 0

    def test_outputs_equal_those_of_the_processor(self, device, good):
        images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
        session = onnxruntime.InferenceSession(good["first"], providers=["CPUExecutionProvider"])
        ((ours,),) = device.run(good["first"], [{"image": images}])
        tolerance = 1e-4 if device.precision == "fp32" else 2e-2
        expected = session.run(None, {"image": images})[0]
        np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)

    def test_the_gpu_is_in_the_fingerprint(self, device):
        assert device.fingerprint()["gpu"] != "unknown"
        assert device.fingerprint()["driver"] != "unknown"


@pytest.mark.gpu
class TestOrtCuda(OnHardware):
    SPEC = "ort-cuda"


@pytest.mark.gpu
class TestOrtCudaHalf(OnHardware):
    SPEC = "ort-cuda:precision=fp16,transfers=included"


@pytest.mark.gpu
@pytest.mark.timeout(600)
class TestOrtTensorRt(OnHardware):
    SPEC = "ort-tensorrt:precision=fp32"


@pytest.mark.gpu
@pytest.mark.timeout(600)
class TestOrtTensorRtHalf(OnHardware):
    SPEC = "ort-tensorrt:precision=fp16"


@pytest.mark.gpu
@pytest.mark.timeout(600)
class TestTensorRt(OnHardware):
    SPEC = "tensorrt:precision=fp32"


@pytest.mark.gpu
@pytest.mark.timeout(600)
class TestTensorRtHalf(OnHardware):
    SPEC = "tensorrt:precision=fp16,transfers=included"


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("spec", ["ort-tensorrt", "tensorrt"])
def test_engines_are_built_once(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    files = {"a": tiny_models.conv(tmp_path / "a.onnx")}
    device = load_device(spec)
    device.measure(files, seed=0, settings=QUICK)
    engines = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
    assert engines
    device.measure(files, seed=1, settings=QUICK)
    assert engines == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}


@pytest.fixture
def fake(monkeypatch):
    """Make a device on a GPU, with a runtime that needs none."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def make(spec):
        name, given = split_spec(spec)
        factory = load_factory(name)
        device = factory.create(**parse_options(factory, given))
        device._runtime = fake_runtime.NAME
        return device

    return make


@pytest.mark.parametrize("name", NAMES)
def test_they_are_called_untested_until_they_have_run(name):
    assert load_factory(name).untested
    assert not load_factory("ort-cpu").untested


@pytest.mark.parametrize("name", NAMES)
def test_asking_for_one_that_is_not_here_says_what_is_missing(name):
    reason = load_factory(name).available()
    if reason is None:  # this machine has it
        assert load_device(name).spec.startswith(name)
        return
    with pytest.raises(InputError, match=f"device '{name}' cannot be used here") as raised:
        load_device(name)
    assert "pip install 'hwsearch[" in str(raised.value) or "driver" in str(raised.value)


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("ort-cuda", "ort-cuda:precision=fp32"),
        ("ort-tensorrt:precision=fp16", "ort-tensorrt:precision=fp16"),
        (
            "tensorrt:transfers=included,device_id=1,batch=8",
            "tensorrt:precision=fp32,batch=8,device_id=1,transfers=included",
        ),
    ],
)
def test_they_are_written_down_with_their_precision(fake, written, spec):
    device = fake(written)
    assert device.spec == spec
    assert device.precision == ("fp16" if "fp16" in written else "fp32")


@pytest.mark.parametrize("name", NAMES)
def test_int8_is_not_offered(name):
    factory = load_factory(name)
    with pytest.raises(InputError, match="fp32, fp16"):
        parse_options(factory, {"precision": "int8"})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("transfers", ["excluded", "included"])
def test_the_option_says_which_time_is_the_latency(fake, tmp_path, name, transfers):
    device = fake(f"{name}:transfers={transfers},batch=2")
    files = {"m3": tiny_models.conv(tmp_path / "m3.onnx")}
    latency = device.measure(files, seed=0, settings=SETTINGS)["m3"]
    assert latency.transfers == transfers == device.fingerprint()["transfers"]
    assert (latency.device_ms, latency.end_to_end_ms) == pytest.approx((3.0, 3.5))
    assert latency.latency_ms == pytest.approx(3.0 if transfers == "excluded" else 3.5)
    assert latency.inputs == "image float32[2, 3, 8, 8]"


def test_a_disturbed_clock_is_in_the_warnings(fake, tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(ClockMonitor, "read", lambda watch: looks.append(watch))
    monkeypatch.setattr(ClockMonitor, "warnings", lambda watch: ("the clock moved",))
    told = []
    latency = fake("ort-cuda").measure(
        {"m1": tiny_models.conv(tmp_path / "m1.onnx")},
        seed=0,
        settings=SETTINGS,
        progress=lambda *args: told.append(args),
    )["m1"]
    assert latency.warnings[-1] == "the clock moved"
    assert len(looks) == len(told) == latency.rounds


def test_providers_are_given_the_documented_options(fake):
    ((name, options),) = fake("ort-cuda:device_id=1").options(timed=True)["providers"]
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert options["use_tf32"] == "0"
    device = fake("ort-tensorrt")
    (name, options), (second, _) = device.options(timed=True)["providers"]
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
    kept = str(device.engines())
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == kept
    assert options["trt_fp16_enable"] == "False"
    half = dict(fake("ort-tensorrt:precision=fp16").options(timed=True)["providers"])
    assert half["TensorrtExecutionProvider"]["trt_fp16_enable"] == "True"  # else it refuses files


def test_engines_are_kept_by_fingerprint(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    half, whole = fake("tensorrt:precision=fp16"), fake("tensorrt:precision=fp32")
    assert half.engines() != whole.engines()
    assert half.engines().is_relative_to(tmp_path / "engines")
    timed, untimed = half.options(timed=True), half.options(timed=False)
    assert (timed["beside"], untimed["beside"]) == (True, False)
    assert timed["engines"] == str(half.engines())
    providers = dict(fake("ort-tensorrt").options(timed=True)["providers"])
    assert list(providers) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


def test_a_cache_that_cannot_be_written_is_said(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="HWSEARCH_CACHE"):
        fake("tensorrt").engines()
