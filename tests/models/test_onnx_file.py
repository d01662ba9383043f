"""ONNX files are parsed once while they stay the same."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.models import onnx_file
from hwsearch.models.exported_module import ExportedModule
from hwsearch.models.onnx_file import external_tensors, read_model, write_model


def model(value=1.0):
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1024]) for name in "xy"]
    weight = numpy_helper.from_array(np.full(1024, value, np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "g", sides[:1], sides[1:], [weight]))


@pytest.fixture
def parsed(monkeypatch):
    """Return the paths that are parsed."""
    paths, load = [], onnx.load

    def watched(path, **named):
        paths.append(os.path.basename(path))
        return load(path, **named)

    monkeypatch.setattr(onnx_file.onnx, "load", watched)
    return paths


def test_a_file_is_parsed_once_until_it_changes(tmp_path, parsed):
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    assert read_model(path) is read_model(path)
    onnx.save(model(2.0), path)
    os.utime(path, ns=(1, 1))
    assert read_model(path) == model(2.0)
    assert parsed == ["model.onnx"] * 2


def test_a_written_model_is_not_parsed_while_it_is_in_memory(tmp_path, parsed):
    path = tmp_path / "model.onnx"
    exported = ExportedModule(arch=None, subnet=None, model=model())
    assert write_model(path, exported.model, exported) == path.stat().st_size
    assert read_model(path) is exported.model
    assert not parsed
    del exported
    assert read_model(path) == model()
    assert parsed == ["model.onnx"]


def test_a_file_that_is_replaced_by_others_is_parsed(tmp_path):
    path = tmp_path / "model.onnx"
    exported = ExportedModule(arch=None, subnet=None, model=model())
    write_model(path, exported.model, exported)
    onnx.save(model(2.0), path)
    os.utime(path, ns=(1, 1))
    assert read_model(path) == model(2.0)


def test_weights_in_other_files_are_not_read(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin")
    (tmp_path / "weights.bin").unlink()
    assert [tensor.name for tensor in external_tensors(read_model(path))] == ["w"]
