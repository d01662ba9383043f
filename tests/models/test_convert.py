"""Models whose blocks have different precisions."""

import numpy as np
import onnx
import pytest

import hwsearch
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.convert import Converter, blocks_of, node_blocks
from hwsearch.models.execution import Session
from hwsearch.models.onnx_file import precision_of, read_metadata
from hwsearch.models.quantize import Calibration, quantize_int8
from hwsearch.quantization import Quantization
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family
from tests.elastic.networks import network
from tests.models.products import encoder

HOW = Quantization(activations="uint8", reduce_range=True)


@pytest.fixture(scope="module")
def net():
    return Supernet("tiny", load_family("cifar10-resnet").tiny()).with_precision(
        "fp32", "int8", per="block"
    )


def samples(net):
    return [probe_inputs(net.input_spec(net.space.smallest()[0]).inputs, samples=8)]


def converted(net, arch):
    model = hwsearch.to_onnx(net, arch)
    convert = Converter(
        quantization=HOW, calibrate=lambda given: Calibration.of(given, samples(net), HOW, "abc")
    )
    return model, convert(model, net.precisions(arch), blocks_of(net, model))


def with_precisions(net, of):
    """The largest architecture with the precision that a function gives each block."""
    mapping = dict(net.space.largest()[0].mapping)
    chosen = {name: of(name) for name in mapping if name.startswith("precision.")}
    return net.space.architectures([mapping | chosen])[0]


def test_int8_throughout_is_the_int8_file(net):
    model, made = converted(net, net.precision.throughout(net.structures.largest(), net.space)[0])
    expected = quantize_int8(model, Calibration.of(model, samples(net), HOW, "abc"), HOW)
    assert made.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


def test_fp32_throughout_is_the_given_model(net):
    model, made = converted(net, net.space.largest()[0])
    assert made is model


def test_only_nodes_of_int8_blocks_read_integers(net):
    arch = with_precisions(net, lambda name: "int8" if "stage2" in name else "fp32")
    _model, made = converted(net, arch)
    onnx.checker.check_model(made, full_check=True)
    assert precision_of(made) == "mixed"
    assert read_metadata(made)["quantization_samples"] == "8@abc"
    back = {out for n in made.graph.node if n.op_type == "DequantizeLinear" for out in n.output}
    read = {
        node.name: bool(back & set(node.input))
        for node in made.graph.node
        if node.op_type == "Conv"
    }
    assert {name.partition("/")[0].startswith("stage2") for name, yes in read.items() if yes} == {
        True
    }
    assert not any(yes for name, yes in read.items() if not name.startswith("stage2"))
    assert any(read.values())


def test_outputs_are_near_the_float32_ones(net):
    arch = with_precisions(net, lambda name: "int8" if "stage1" in name else "fp32")
    model, made = converted(net, arch)
    (batch,) = samples(net)
    (exact,), (near,) = (list(Session(each)(batch).values()) for each in (model, made))
    assert 0 < np.abs(near - exact).max() < 0.1 * np.abs(exact).max()


def test_blocks_of_elastic_models_follow_their_graph():
    elastic = network("residual_cnn")
    net = Supernet("small", elastic).with_precision("fp32", "int8", per="block")
    arch = net.space.largest()[0]
    model = hwsearch.to_onnx(net, arch)
    blocks = blocks_of(net, model)
    assert {node.name for node in model.graph.node} <= blocks.keys()
    assert set(net.precisions(arch)) == set(net.precision.blocks)
    some = net.precision.blocks[0]
    mixed = with_precisions(net, lambda name: "int8" if name.endswith(f".{some}") else "fp32")
    made = converted(net, mixed)[1]
    onnx.checker.check_model(made, full_check=True)
    assert precision_of(made) == "mixed"


def test_names_of_weights_go_before_those_of_nodes():
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "b.fc.weight")
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["r"], name="a/Relu"),
        onnx.helper.make_node("MatMul", ["r", "b.fc.weight"], ["m"], name="a/MatMul"),
        onnx.helper.make_node("Relu", ["m"], ["y"], name="last"),
    ]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y], [weight]))
    assert node_blocks(model, ("a", "b", "b.fc")) == {
        "a/Relu": "a",
        "a/MatMul": "b.fc",
        "last": "b.fc",
    }


def test_networks_that_are_no_chain_have_one_precision(net):
    class Unchained:
        space, card, digest = net.network.space, net.network.card, net.network.digest
        recalibrate = net.network.recalibrate
        subnet, input_spec = net.network.subnet, net.network.input_spec

        def blocks(self, arch):
            return None

    unchained = Supernet("unchained", Unchained())
    assert unchained.with_precision("fp32", "int8").space.names[-1] == "precision"
    with pytest.raises(hwsearch.InputError, match="per='network'"):
        unchained.with_precision("fp32", "int8", per="block")


def test_every_precision_of_products_in_one_file():
    model = encoder(layers=3)
    blocks = {node.name: node.name.partition(".")[0] for node in model.graph.node}
    batch = {"x": np.random.default_rng(0).standard_normal((3, 7, 24)).astype(np.float32)}
    convert = Converter(
        quantization=HOW, calibrate=lambda given: Calibration.of(given, [batch], HOW)
    )
    made = convert(model, {"0": "int8", "1": "int8-dynamic", "2": "int4"}, blocks)
    kinds = {}
    for node in made.graph.node:
        kinds.setdefault(node.op_type, set()).add(node.name.partition(".")[0])
    assert kinds["MatMulInteger"] == {"1"}
    assert kinds["MatMulNBits"] == {"2"}
    assert "2" not in kinds["QuantizeLinear"]
    assert precision_of(made) == "mixed"
    (exact,), (near,) = (list(Session(each)(batch).values()) for each in (model, made))
    assert 0 < np.abs(near - exact).max() < 0.5 * np.abs(exact).max()


@pytest.mark.parametrize("precision", ["int8-dynamic", "int4"])
def test_one_precision_of_products_throughout(precision):
    convert = Converter(quantization=HOW, calibrate=lambda _: pytest.fail("no samples needed"))
    made = convert(encoder(layers=1), {"": precision})
    assert precision_of(made) == precision
