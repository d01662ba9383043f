import numpy as np
import onnxruntime
import pytest

pytest.importorskip("openvino")

from hwsearch.devices import load_device
from hwsearch.devices.base import Profile
from hwsearch.devices.openvino import OpenVino
from hwsearch.errors import InputError
from tests.contracts.device_contract import QUICK, DeviceContract
from tests.devices import tiny_models


class TestOpenVino(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = load_device("openvino:threads=1")
        yield device
        device.close()


class TestOpenVinoInt8Throughput(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = load_device("openvino:hint=throughput,precision=int8")
        yield device
        device.close()


class TestOpenVinoBf16(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = bf16_device()
        yield device
        device.close()


def bf16_device():
    try:
        return load_device("openvino:precision=bf16")
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def device():
    device = load_device("openvino")
    yield device
    device.close()


def test_fingerprint_says_what_decides_a_latency(device):
    fingerprint = device.fingerprint()
    assert fingerprint["runtime"].startswith("openvino 20")
    assert "INFERENCE_PRECISION_HINT=f32" in fingerprint["properties"]
    throughput = load_device("openvino:hint=throughput")
    assert throughput.spec == "openvino:threads=1,hint=throughput"
    assert throughput.fingerprint()["waiting for a cpu"] == "included"
    assert throughput.fingerprint() != fingerprint


def test_outputs_equal_those_of_onnxruntime(device, tmp_path):
    model = tiny_models.conv(tmp_path / "a.onnx")
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ((ours,),) = device.run(model, [{"image": images}])
    np.testing.assert_allclose(ours, session.run(None, {"image": images})[0], rtol=1e-5)


def test_bf16_rounds_what_float32_keeps(device, tmp_path):
    rounding = bf16_device()
    assert "INFERENCE_PRECISION_HINT=bf16" in rounding.fingerprint()["properties"]
    model = tiny_models.conv(tmp_path / "a.onnx", channels=32, size=32)
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    ((exact,),) = device.run(model, [{"image": images}])
    ((rounded,),) = rounding.run(model, [{"image": images}])
    rounding.close()
    difference = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-5 < difference < 5e-2


def test_bf16_is_refused_by_a_processor_without_it(tmp_path, monkeypatch):
    """OpenVINO would compute in float32 and say nothing."""
    (tmp_path / "openvino.py").write_text(
        "__version__ = '2030.1-0'\n"
        "class Core:\n"
        "    def get_property(self, device, name):\n"
        "        return ['FP32', 'INT8']\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"'openvino:threads=1,precision=bf16' cannot be used he"):
        OpenVino(precision="bf16")
    with pytest.raises(InputError, match="computes in FP32, INT8 on this processor, and not in B"):
        OpenVino(precision="bf16")
    assert OpenVino(precision="fp32").precision == "fp32"


def test_the_batch_is_fixed_or_refused(tmp_path):
    files = {
        "dynamic": tiny_models.conv(tmp_path / "d.onnx"),
        "fixed": tiny_models.conv(tmp_path / "f.onnx", batch=1),
        "open": tiny_models.tokens(tmp_path / "t.onnx", length="length"),
    }
    results = load_device("openvino:batch=4").measure(files, seed=0, settings=QUICK)
    assert results["dynamic"].inputs == "image float32[4, 3, 8, 8]"
    assert "fixed to 1" in str(results["fixed"])
    assert "'ids'" in str(results["open"])
    assert "dimension 1" in str(results["open"])


def test_a_file_that_is_none_is_refused_with_openvinos_reason(device, tmp_path):
    files = {"g": tiny_models.garbage(tmp_path / "g.onnx"), "none": tmp_path / "none.onnx"}
    results = device.measure(files, seed=0, settings=QUICK)
    assert "Unable to read the model" in str(results["g"])
    assert "there is no file" in str(results["none"])


def test_a_profile_names_the_nodes_of_the_file(device, tmp_path):
    files = {"a": tiny_models.conv(tmp_path / "a.onnx", size=32, channels=32)}
    profile = device.profile(files, runs=6)["a"]
    assert isinstance(profile, Profile)
    assert profile.nodes_ms["stem/Conv"] > 0
    assert profile.total_ms > 0
