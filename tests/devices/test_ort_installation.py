import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from hwsearch.devices import load_factory
from hwsearch.devices.ort_cpu import build_problem, installed_builds


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these packages, and no others, are installed, some in a later folder."""
    folders = ["/inner", "/outer"]
    monkeypatch.setattr(sys, "path", [*sys.path, *folders])

    def pretend(outer=(), **versions):
        there = {name.replace("_", "-"): version for name, version in versions.items()}

        def distribution(name):
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            folder = Path(folders[name in outer])
            return SimpleNamespace(version=there[name], locate_file=lambda path: folder / path)

        monkeypatch.setattr(metadata, "distribution", distribution)

    return pretend


def test_one_build_is_no_problem(installed):
    installed(onnxruntime="1.20.0")
    assert installed_builds() == {"onnxruntime": "1.20.0"}
    assert build_problem() is None
    assert build_problem("onnxruntime", "any") is None


def test_a_build_of_the_outer_environment_is_hidden(installed):
    installed(outer=["onnxruntime"], onnxruntime="1.20.0", onnxruntime_gpu="1.31.1")
    assert installed_builds() == {"onnxruntime-gpu": "1.31.1"}
    assert build_problem() is None
    assert build_problem("onnxruntime-gpu") is None


@pytest.mark.parametrize("device", ["ort-cpu", "ort-cuda", "ort-tensorrt"])
def test_two_builds_are_explained_by_every_device_of_onnx_runtime(installed, device):
    installed(onnxruntime="1.20.0", onnxruntime_gpu="1.19.2")
    reason = load_factory(device).available()
    assert "onnxruntime 1.20.0 and onnxruntime-gpu 1.19.2" in reason
    assert "overwrite" in reason
    repair = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'hwsearch[gpu]'"
    assert repair in reason


def test_the_wrong_build_is_named_with_what_replaces_it(installed):
    installed(onnxruntime="1.20.0")
    reason = load_factory("ort-cuda").available()
    assert "onnxruntime-gpu is not installed" in reason
    assert "here is onnxruntime 1.20.0" in reason
    assert "pip uninstall -y onnxruntime && pip install 'hwsearch[gpu]'" in reason


def test_no_build_is_named_with_what_brings_it(installed):
    installed()
    reason = load_factory("ort-tensorrt").available()
    assert "onnxruntime-gpu is not installed (TensorrtExecutionProvider)" in reason
    assert reason.endswith("pip install 'hwsearch[gpu]'")
