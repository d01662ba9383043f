"""A tiled model is the same work on ordinary numbers, and compresses."""

import zlib
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwsearch
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.quantize import quantize_int8
from hwsearch.models.repeated_weights import timing_model, with_repeated_weights
from hwsearch.quantization import Quantization
from hwsearch.supernets.zoo import load_family

FAMILIES = ["cifar10-resnet", "ofa-mbv3-w1.0", "ofa-resnet50"]


def built(name):
    """A subnet's model, of the supernet's miniature."""
    net = hwsearch.supernets.supernet.Supernet(name, load_family(name).tiny())
    return hwsearch.to_onnx(net, net.space.largest()[0])


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def inner_values(model):
    """Every value that is computed on the way, for a standard normal input."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    names = [name for node in seen.graph.node for name in node.output]
    seen.graph.output.extend(helper.make_value_info(name, onnx.TypeProto()) for name in names)
    ready = session(seen)
    (given,) = ready.get_inputs()
    shape = [side if isinstance(side, int) else 1 for side in given.shape]
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return ready.run(None, {given.name: image})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_number_on_the_way_is_an_ordinary_one(name):
    for values in inner_values(with_repeated_weights(built(name))):
        assert np.isfinite(values).all()
        sizes = np.abs(values[values != 0])
        assert sizes.size
        assert sizes.max() < 1e6
        assert sizes.min() > 1e-30  # far from where float32 becomes denormal, 1e-38


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_stays_and_the_numbers_go(name):
    model = built(name)
    made = with_repeated_weights(model)
    onnx.checker.check_model(made, full_check=True)
    assert [(n.op_type, n.name) for n in made.graph.node] == [
        (n.op_type, n.name) for n in model.graph.node
    ]
    for before, after in zip(model.graph.initializer, made.graph.initializer, strict=True):
        assert (before.name, before.dims, before.data_type) == (
            after.name,
            after.dims,
            after.data_type,
        )
        if len(after.dims) > 1 and np.prod(after.dims) >= 8:
            learned, tile = numpy_helper.to_array(before), numpy_helper.to_array(after)
            assert not np.array_equal(learned, tile)
    assert model.SerializeToString() == built(name).SerializeToString()  # left alone


def test_a_tiled_model_compresses_and_says_what_it_is():
    model = built("cifar10-resnet")
    made = with_repeated_weights(model)
    stated = {prop.key: prop.value for prop in made.metadata_props}
    assert stated["hwsearch.weights"] == "a repeated random tile"
    assert "hwsearch.checkpoint" not in stated
    large = helper.make_tensor("w", TensorProto.FLOAT, (256, 256, 3, 3), np.zeros(589824))
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "one", [], [], [large])
    raw = with_repeated_weights(helper.make_model(graph)).SerializeToString()
    assert len(zlib.compress(raw, 9)) < len(raw) / 250


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("name", ["cifar10-resnet", "ofa-mbv3-w1.0"])
def test_an_int8_model_for_timing_runs_the_nodes_of_a_calibrated_one(name, activations, tmp_path):
    net = hwsearch.supernets.supernet.Supernet(name, load_family(name).tiny())
    arch, how = net.space.largest()[0], Quantization(activations=activations)
    samples = [probe_inputs(net.input_spec(arch).inputs, seed=5)]
    calibrated = quantize_int8(hwsearch.to_onnx(net, arch), samples, how)
    without = with_repeated_weights(calibrated)
    assert [(n.op_type, n.name) for n in without.graph.node] == [
        (n.op_type, n.name) for n in calibrated.graph.node
    ]
    models = calibrated, without, timing_model(net, arch, "int8", how)
    first, *others = [optimised(model, tmp_path / "optimised.onnx") for model in models]
    assert first == others[0] == others[1]


def optimised(model, path):
    """Operators of the graph that ONNX Runtime makes of a model, counted."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_an_int8_model_keeps_no_weights():
    net = hwsearch.supernets.supernet.Supernet("tiny", load_family("cifar10-resnet").tiny())
    arch, how = net.space.largest()[0], Quantization(activations="uint8", reduce_range=True)
    samples = [probe_inputs(net.input_spec(arch).inputs, seed=5)]
    model = with_repeated_weights(quantize_int8(hwsearch.to_onnx(net, arch), samples, how))
    onnx.checker.check_model(model, full_check=True)
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer]
    integers = [w.ravel() for w in weights if w.dtype in (np.int8, np.int32) and w.size >= 8]
    assert {w.dtype for w in integers} == {np.dtype(np.int8), np.dtype(np.int32)}
    longest = max(integers, key=len)
    assert all(np.array_equal(w, longest[: len(w)].astype(w.dtype)) for w in integers if w.any())
    assert 0 < np.abs(longest).max() < 64


def test_norms_keep_their_variance_positive_and_constants_stay():
    channels = 16
    names = ("scale", "shift", "mean", "variance")
    tensors = [numpy_helper.from_array(np.full(channels, 3, np.float32), name) for name in names]
    sizes = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sizes")
    nodes = [
        helper.make_node("BatchNormalization", ["x", *names], ["n"]),
        helper.make_node("Resize", ["n", "", "sizes"], ["y"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "norm", [], [], [*tensors, sizes]))
    found = {
        t.name: numpy_helper.to_array(t) for t in with_repeated_weights(model).graph.initializer
    }
    assert found["variance"].tolist() == found["scale"].tolist() == [1.0] * channels
    assert np.abs(found["mean"]).max() < 1
    assert found["sizes"].tolist() == [1, 1, 2, 2]
