"""The half of the ONNX Runtime devices that lies in the worker, with the processor as the GPU."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from hwsearch.devices import ort_gpu_runtime
from hwsearch.devices.ort_gpu_runtime import (
    OrtGpuModel,
    profile_shapes,
    with_own_engines,
    with_tensorrt_options,
)
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Declared
from tests.devices import tiny_models

PROCESSOR = [("CPUExecutionProvider", {})]


@pytest.fixture
def path(tmp_path):
    return tiny_models.conv(tmp_path / "a.onnx")


def load(path, batch):
    return OrtGpuModel(str(path), PROCESSOR, memory=("cpu", 0), batch=batch)


def test_both_modes_run_the_bound_model(path):
    model = load(path, 2)
    bound = model.bind({"image": np.ones((2, 3, 8, 8), np.float32)})
    assert list(bound.modes) == [ON_DEVICE, END_TO_END]
    assert [output.shape for output in bound.outputs.values()] == [(2, 8, 1, 1)]
    for once in bound.modes.values():
        for _ in range(3):
            assert once() is None


def test_outputs_are_those_of_onnxruntime(path):
    image = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    expected = onnxruntime.InferenceSession(path).run(None, {"image": image})
    np.testing.assert_allclose(load(path, None).run({"image": image})[0], expected[0], rtol=1e-6)


def test_a_named_batch_is_fixed_in_the_session(path):
    assert load(path, 4).inputs == [Declared("image", "float32", ("batch", 3, 8, 8))]
    (fixed,) = load(path, 4)._session.get_inputs()
    assert fixed.shape == [4, 3, 8, 8]
    (opened,) = load(path, None)._session.get_inputs()
    assert opened.shape == ["batch", 3, 8, 8]


def test_each_file_and_batch_has_engines_of_its_own(tmp_path):
    kept = dict.fromkeys(("trt_engine_cache_path", "trt_timing_cache_path"), str(tmp_path))
    providers = [("TensorrtExecutionProvider", kept), ("CUDAExecutionProvider", {})]
    folders = set()
    for content, batch in ((b"one", 1), (b"two", 1), (b"one", 8), (b"one", None)):
        (name, options), other = with_own_engines(providers, content, batch)
        assert name == "TensorrtExecutionProvider"
        assert options["trt_timing_cache_path"] == str(tmp_path)
        assert other == providers[1]
        folders.add(options["trt_engine_cache_path"])
    assert len(folders) == 4
    assert providers[0][1]["trt_engine_cache_path"] == str(tmp_path)


def test_shapes_go_from_one_to_the_largest_batch():
    declared = [
        Declared("image", "float32", ("batch", 3, 8, 8)),
        Declared("fixed", "float32", (1, 4)),
    ]
    feeds = {"image": np.ones((125, 3, 8, 8)), "fixed": np.ones((1, 4))}
    shapes = profile_shapes(declared, feeds)
    assert shapes == {
        "trt_profile_min_shapes": "image:1x3x8x8",
        "trt_profile_opt_shapes": "image:125x3x8x8",
        "trt_profile_max_shapes": "image:125x3x8x8",
    }
    assert profile_shapes(declared[1:], feeds) == {}
    providers = [("TensorrtExecutionProvider", {"device_id": "0"}), *PROCESSOR]
    tensorrt, processor = with_tensorrt_options(providers, shapes)
    assert tensorrt[1] == {"device_id": "0", **shapes}
    assert processor == PROCESSOR[0]


def test_libraries_in_packages_of_the_outer_environment_are_loaded(tmp_path, monkeypatch):
    places = [tmp_path / "inner" / "nvidia", tmp_path / "outer" / "nvidia"]
    folders = [places[0] / "cudnn" / "lib", places[1] / "cu13" / "lib", places[1] / "nccl" / "lib"]
    for folder in folders:
        folder.mkdir(parents=True)
    nvidia = SimpleNamespace(submodule_search_locations=list(map(str, places)))
    monkeypatch.setattr(ort_gpu_runtime, "find_spec", {"nvidia": nvidia}.get)
    loaded = []
    preload = lambda directory=None: loaded.append(directory)  # noqa: E731
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    ort_gpu_runtime.load_packaged_libraries()
    assert loaded == [None, *map(str, folders)]
    monkeypatch.setattr(ort_gpu_runtime, "find_spec", {}.get)
    ort_gpu_runtime.load_packaged_libraries()
    assert loaded[-1] is None


@pytest.mark.parametrize("first", ["TensorrtExecutionProvider", "CUDAExecutionProvider"])
def test_the_libraries_of_tensorrt_are_loaded_for_its_provider_alone(
    path, tmp_path, monkeypatch, first
):
    imported = []
    monkeypatch.setattr(ort_gpu_runtime, "find_spec", {"tensorrt": "it is installed"}.get)
    monkeypatch.setattr(ort_gpu_runtime, "import_module", imported.append)
    monkeypatch.setattr(ort_gpu_runtime, "OrtGpuModel", lambda *given, **named: None)
    options = {"providers": [(first, {"trt_engine_cache_path": str(tmp_path)})], "device_id": 0}
    ort_gpu_runtime.RUNTIME.load(str(path), batch=1, options=options)
    assert imported == (["tensorrt"] if first.startswith("Tensorrt") else [])


def test_a_silent_fall_back_to_the_processor_is_refused(path, monkeypatch):
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda source, settings, providers: real(source, settings)
    )
    providers = [("CUDAExecutionProvider", {"device_id": "0"})]
    with pytest.raises(ValueError, match="could not start CUDAExecutionProvider and fell back"):
        OrtGpuModel(str(path), providers, memory=("cuda", 0), batch=1)
