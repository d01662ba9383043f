"""Trained models become supernets by samples, and are found again."""

import sys

import numpy as np
import onnx
import pytest

import hwsearch
from hwsearch import elastify, load_supernet, loading
from hwsearch.errors import InputError
from hwsearch.testing import check_supernet
from tests.contracts.device_contract import QUICK
from tests.elastic_parts import write_model, write_samples


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model and samples."""
    folder = tmp_path_factory.mktemp("place")
    write_samples(folder / "data.npz", write_model(folder / "model.onnx"))
    return folder


@pytest.fixture(scope="module")
def model(place):
    return str(place / "model.onnx")


@pytest.fixture(scope="module")
def data(place):
    return f"npz:{place / 'data.npz'}"


@pytest.fixture
def made_once(monkeypatch):
    """Refuse that anything is made elastic: what there is has to be opened."""

    def unwanted(*args, **settings):
        raise AssertionError("it was made before")

    monkeypatch.setattr(loading.elastic, "elastify", unwanted)


def test_a_file_becomes_a_supernet(model, data):
    net = load_supernet(model, data=data)
    assert net.name == model
    assert net.writes_onnx
    assert net.space.size > 10
    assert check_supernet(net.network) == {}
    arch = net.space.smallest()[0]
    smallest = hwsearch.to_onnx(net, arch)
    onnx.checker.check_model(smallest, full_check=True)
    assert smallest.ByteSize() < onnx.load(model).ByteSize()


def test_it_is_opened_again(model, data, request):
    first = load_supernet(model, data=data)
    request.getfixturevalue("made_once")
    again = load_supernet(model, data=data)
    assert again.digest == first.digest
    assert again.space == first.space
    assert elastify(model, data).digest == first.digest


def test_other_samples_and_other_models_are_kept_apart(model, data, place, tmp_path):
    first = elastify(model, data)
    more = write_samples(tmp_path / "more.npz", model, seed=5)
    other = elastify(model, more)
    namesake = elastify(write_model(tmp_path / "model.onnx", seed=3), data)
    assert len({first.name, other.name, namesake.name}) == 3
    assert len({first.digest, other.digest, namesake.digest}) == 3
    assert {each.card.name for each in (first, other, namesake)} == {"model"}


def test_a_folder_is_written_where_it_is_wanted(model, data, tmp_path, request):
    net = elastify(model, data, out=tmp_path / "mine.elastic", name="mine", licence="MIT")
    request.getfixturevalue("made_once")
    again = load_supernet(str(tmp_path / "mine.elastic"))
    assert again.digest == net.digest
    assert (again.card.name, again.card.licence) == ("mine", "MIT")
    assert "model.onnx, SHA-256 " in again.card.source
    archs = net.space.sample(3, seed=0)
    for one, other in zip(archs, again.space.sample(3, seed=0), strict=True):
        mine, theirs = hwsearch.to_onnx(net, one), hwsearch.to_onnx(again, other)
        assert mine.SerializeToString() == theirs.SerializeToString()


def test_samples_need_no_labels(model, data, tmp_path):
    unlabelled = write_samples(tmp_path / "data.npz", model, labelled=False)
    assert elastify(model, unlabelled).digest == elastify(model, data).digest


@pytest.mark.parametrize("given", [None, "bundled", "none"])
def test_a_trained_model_needs_data(model, given):
    with pytest.raises(InputError, match=r"is a trained model.*give data"):
        load_supernet(model, data=given)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.onnx", "there is no file absent.onnx"),
        ("absent.elastic", "is no elastic model"),
        ("text.onnx", "no ONNX model"),
        ("page.onnx", "is a web page"),
        ("weights.pth", "holds weights and no network"),
        (".", "give the file in it: page.onnx, text.onnx"),
    ],
)
def test_files_that_are_none(data, tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("{}")
    (tmp_path / "page.onnx").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(InputError, match=says):
        load_supernet(name, data=data)


def test_weights_that_are_inputs_are_none(model, data, tmp_path):
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        shape = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(shape)
    del proto.graph.initializer[:]
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="the model has no weights"):
        elastify(str(tmp_path / "model.onnx"), data)


def test_outputs_that_are_no_numbers(model, data, tmp_path):
    proto = onnx.load(model)
    (output,) = proto.graph.output
    last = next(node for node in proto.graph.node if output.name in node.output)
    last.output[list(last.output).index(output.name)] = "before"
    proto.graph.node.append(onnx.helper.make_node("Abs", ["before"], ["size"]))
    proto.graph.node.append(onnx.helper.make_node("Neg", ["size"], ["below"]))
    proto.graph.node.append(onnx.helper.make_node("Log", ["below"], [output.name]))
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=f"output '{output.name}' of the model is NaN"):
        elastify(str(tmp_path / "model.onnx"), data)


def test_checkpoints_are_refused_where_weights_are_in_the_file(model, data, tmp_path):
    with pytest.raises(InputError, match="has its weights in it"):
        load_supernet(model, "random:0", data=data)
    elastify(model, data, out=tmp_path / "mine.elastic")
    with pytest.raises(InputError, match="has its weights in it"):
        load_supernet(str(tmp_path / "mine.elastic"), "random:0")


def test_what_is_no_model_is_refused(data):
    with pytest.raises(InputError, match="'mobilenet' is no trained model"):
        elastify("mobilenet", data)
    with pytest.raises(InputError, match="is an elastic model already"):
        elastify("mine.elastic", data)
    with pytest.raises(InputError, match="a dict is no trained model"):
        elastify({}, data)


def test_a_model_in_memory(model, data):
    net = elastify(onnx.load(model), data)
    assert net.space == elastify(model, data).space


@pytest.mark.parametrize("device", ["ort-cpu", "openvino"])
def test_an_open_length_is_timed_as_that_of_the_data(tmp_path, monkeypatch, device):
    pytest.importorskip("openvino" if device == "openvino" else "onnxruntime")
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    shapes = {"up": (16, 64), "down": (64, 5)}
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("MatMul", ["tokens", "up"], ["hidden"]),
        onnx.helper.make_node("Relu", ["hidden"], ["positive"]),
        onnx.helper.make_node("MatMul", ["positive", "down"], ["states"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "length", size])
        for name, size in (("tokens", 16), ("states", 5))
    ]
    graph = onnx.helper.make_graph(nodes, "text", ends[:1], ends[1:], weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    np.savez(tmp_path / "data.npz", tokens=rng.standard_normal((60, 7, 16)).astype(np.float32))
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    net = elastify(proto, f"npz:{tmp_path / 'data.npz'}", out=tmp_path / "text.elastic")
    smallest = hwsearch.to_onnx(net, net.space.smallest()[0])
    length = smallest.graph.input[0].type.tensor_type.shape.dim[1]
    assert length.dim_param  # the file takes others too
    (row,) = hwsearch.measure([smallest], device, settings=QUICK).to_dict("records")
    assert row["latency_ms"] > 0, row["error"]


def test_data_that_do_not_fit(model, tmp_path):
    np.savez(tmp_path / "small.npz", image=np.zeros((50, 3, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"image holds samples of shape \(3, 4, 4\)"):
        elastify(model, f"npz:{tmp_path / 'small.npz'}")


MODULE = """
import torch
from torch import nn


def load():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        )
    return net.eval(), torch.zeros(1, 3, 8, 8)


def load_with(checkpoint):
    return load()
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A user's file in the working directory."""
    (tmp_path / "my_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_module"
    sys.modules.pop("my_module", None)


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", input=rng.standard_normal((240, 3, 8, 8)).astype(np.float32))
    return f"npz:{tmp_path / 'a.npz'}"


def test_modules(modules, arrays):
    named = load_supernet(f"{modules}:load", data=arrays)
    assert load_supernet(f"{modules}:load_with", data=arrays).space == named.space
    module, inputs = __import__(modules).load()
    given = elastify(module, arrays, inputs=inputs, name="load")
    assert given.space == named.space
    arch = given.space.smallest()[0]
    assert hwsearch.to_onnx(given, arch).SerializeToString() != b""
    with pytest.raises(InputError, match="needs example inputs"):
        elastify(module, arrays)
