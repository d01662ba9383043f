"""The device tensorrt against libraries that stand in for TensorRT and CUDA."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from hwsearch.devices import Latency
from hwsearch.devices.tensorrt import TensorRt
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from tests.contracts.device_contract import QUICK, DeviceContract
from tests.devices import tiny_models

FAKES = str(Path(__file__).with_name("fake_nvidia"))
VALUES = {"precision": "fp32", "batch": 1, "device_id": 0, "transfers": "excluded"}


@pytest.fixture(scope="module", autouse=True)
def _fakes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", FAKES)
        yield


class TestTensorRtWithFakes(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = TensorRt(**VALUES | {"precision": "fp16", "transfers": "included"})
        yield device
        device.close()


@pytest.fixture
def device(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    device = TensorRt(**VALUES)
    yield device
    device.close()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "models").mkdir()
    return {"a": tiny_models.conv(tmp_path / "models" / "a.onnx")}


def engines(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.engine")}


def test_an_engine_lies_next_to_its_file_and_is_used_again(device, files, tmp_path):
    assert isinstance(device.measure(files, seed=0, settings=QUICK)["a"], Latency)
    kept = engines(tmp_path)
    # The two anchors have no file of their own.
    folders = [device.engines(), device.engines(), tmp_path / "models"]
    assert sorted(path.parent for path in kept) == sorted(folders)
    device.measure(files, seed=1, settings=QUICK)
    assert engines(tmp_path) == kept


def test_an_engine_is_not_used_for_other_weights_or_another_batch(device, files, tmp_path):
    device.measure(files, seed=0, settings=QUICK)
    before = engines(tmp_path / "models")
    tiny_models.conv(files["a"], channels=4)
    device.measure(files, seed=0, settings=QUICK)
    changed = engines(tmp_path / "models")
    assert len(changed) == len(before) + 1
    TensorRt(**VALUES | {"batch": 2}).measure(files, seed=0, settings=QUICK)
    assert len(engines(tmp_path / "models")) == len(changed) + 1


def test_an_engine_lies_in_the_cache_where_its_folder_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # which the module sets
    loaded = set(sys.modules)
    runtime = importlib.import_module("hwsearch.devices.tensorrt_runtime")
    for name in sys.modules.keys() - loaded:
        del sys.modules[name]
    built = []

    def build():
        built.append(1)
        return b"engine"

    folders = [tmp_path / "not there", tmp_path]
    for _ in range(2):
        assert runtime.cached_engine("k.engine", folders, bytes, build) == b"engine"
    assert len(built) == len(engines(tmp_path)) == 1


def test_timings_of_kernels_are_kept_and_those_of_another_gpu_begun_anew(device, files):
    timings = device.engines() / "kernels.timing"
    device.measure(files, seed=0, settings=QUICK)
    grown = timings.read_bytes()
    assert set(grown) == set(b"+")
    timings.write_bytes(b"another GPU")
    tiny_models.conv(files["a"], channels=4)
    device.measure(files, seed=0, settings=QUICK)
    assert timings.read_bytes() == b"+"


def test_batches_up_to_the_largest_need_one_engine(device, files):
    sizes = (5, 2, 5, 8, 1)
    batches = [{"image": np.ones((n, 3, 8, 8), np.float32)} for n in sizes]
    assert [len(out) for (out,) in device.run(files["a"], batches)] == list(sizes)
    assert len(engines(device.engines())) == 2


def test_tensorrts_own_reason_is_told(device, files, tmp_path):
    files |= {"garbage": tiny_models.garbage(tmp_path / "garbage.onnx")}
    files |= {"open": tiny_models.tokens(tmp_path / "open.onnx", length="length")}
    results = device.measure(files, seed=0, settings=QUICK)
    assert isinstance(results["a"], Latency)
    assert "TensorRT cannot take the model: " in str(results["garbage"])
    assert "dimension 1" in str(results["open"])


def test_a_damaged_engine_is_built_again(device, files, tmp_path):
    device.measure(files, seed=0, settings=QUICK)
    (path,) = engines(tmp_path / "models")
    sound = path.read_bytes()
    path.write_bytes(b"damaged")
    assert isinstance(device.measure(files, seed=0, settings=QUICK)["a"], Latency)
    assert path.read_bytes() == sound


def test_a_gpu_that_is_not_there_is_told(files):
    results = TensorRt(**VALUES | {"device_id": 3}).measure(files, seed=0, settings=QUICK)
    assert "cudaErrorInvalidDevice" in str(results["a"])


def test_a_worker_without_the_library_says_so(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(DeviceError, match="tensorrt"):
        Worker(None, "hwsearch.devices.tensorrt_runtime:RUNTIME")
