"""Files of the writer equal those of ONNX Runtime's static quantiser, for any set of nodes."""

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as peer

import hwsearch
from hwsearch.errors import EvaluationError
from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.qdq import Int8Writer, activations, quantizable_nodes
from hwsearch.models.quantize import quantize_int8
from hwsearch.quantization import Quantization
from hwsearch.supernets.zoo import supernet_names
from tests.models.products import parts

U8 = Quantization(activations="uint8")
WAYS = (
    U8,
    Quantization(activations="uint8", reduce_range=True),
    Quantization(activations="int8"),
    Quantization(activations="int8", reduce_range=True),
)
TYPES = {"uint8": peer.QuantType.QUInt8, "int8": peer.QuantType.QInt8}


class Reader:
    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


def of_onnxruntime(model, batches, how, nodes, folder):
    """What its quantiser makes of the same samples."""
    given, ready, done = (folder / f"{name}.onnx" for name in ("given", "ready", "done"))
    onnx.save(model, given)
    peer.quant_pre_process(given, ready, skip_optimization=True, skip_symbolic_shape=True)
    peer.quantize_static(
        ready,
        done,
        Reader(batches),
        quant_format=peer.QuantFormat.QDQ,
        activation_type=TYPES[how.activations],
        weight_type=peer.QuantType.QInt8,
        per_channel=True,
        reduce_range=how.reduce_range,
        nodes_to_quantize=nodes,
        extra_options={"ActivationSymmetric": how.activations == "int8"},
    )
    return onnx.load(done)


def check_equal(model, batches, how, folder, nodes=None):
    nodes = quantizable_nodes(model) if nodes is None else nodes
    ranges, _ = activation_ranges(model, activations(model), batches)
    ours = Int8Writer(model, ranges, how).write(nodes)
    onnx.checker.check_model(ours, full_check=True)
    assert parts(ours) == parts(of_onnxruntime(model, batches, how, nodes, folder))


def constant(seed, name, *shape):
    values = np.random.default_rng(seed).standard_normal(shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


@pytest.fixture(scope="module")
def many_operators():
    """Every operator that has a rule of its own, once or in two ways."""
    node = partial(helper.make_node)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b1"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=8),
        node("Clip", ["c2", "zero", "six"], ["k2"], "clip2"),
        node("Add", ["k2", "p1"], ["a2"], "add2"),
        node("Sigmoid", ["a2"], ["s2"], "sigmoid2"),
        node("Mul", ["a2", "s2"], ["m2"], "mul2"),
        node("Relu", ["m2"], ["r2"], "relu2"),  # what it reads has another reader
        node("Concat", ["m2", "r2"], ["cat"], "concat", axis=1),
        node("ConvTranspose", ["cat", "w3"], ["t3"], "deconv3", strides=[2, 2]),
        node("LeakyRelu", ["t3"], ["l3"], "leaky3"),
        node("AveragePool", ["l3"], ["p3"], "average3", kernel_shape=[2, 2], strides=[2, 2]),
        node("Pad", ["p3", "pads"], ["d3"], "pad3"),
        node("Split", ["d3"], ["u3", "v3"], "split3", axis=1, num_outputs=2),
        node("HardSwish", ["u3"], ["h3"], "swish3"),  # no rule: float32 in between
        node("GlobalAveragePool", ["h3"], ["g3"], "global3"),
        node("Transpose", ["v3"], ["tv"], "transpose3", perm=[0, 2, 3, 1]),
        node("Slice", ["tv", "from", "to", "one"], ["sv"], "slice3"),
        node("GlobalAveragePool", ["d3"], ["g4"], "global4"),
        node("Flatten", ["g4"], ["f4"], "flatten4"),
        node("Gemm", ["f4", "w4", "b4"], ["y4"], "gemm4", transB=1, beta=0.5),
        node("Softmax", ["y4"], ["q4"], "softmax4", axis=1),
        node("MatMul", ["q4", "w5"], ["y5"], "matmul5"),
        node("Add", ["y5", "b5"], ["z5"], "add5"),
        node("Unsqueeze", ["z5", "one"], ["z6"], "unsqueeze5"),
    ]
    constants = [
        constant(0, "w1", 8, 3, 3, 3), constant(1, "b1", 8), constant(2, "w2", 8, 1, 3, 3),
        constant(3, "w3", 16, 8, 2, 2), constant(4, "w4", 10, 8), constant(5, "b4", 10),
        constant(6, "w5", 10, 6), constant(7, "b5", 6),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        numpy_helper.from_array(np.array([0]), "from"),
        numpy_helper.from_array(np.array([2]), "to"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]  # fmt: skip
    shapes = {"z6": ["n", 1, 6], "g3": ["n", 4, 1, 1], "sv": ["n", 2, 6, 4]}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph(nodes, "operators", [picture], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [{"x": draw.standard_normal((4, 3, 8, 8)).astype(np.float32)} for _ in range(2)]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_every_operator(how, many_operators, pictures, tmp_path):
    check_equal(many_operators, pictures, how, tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_any_set_of_nodes(seed, many_operators, pictures, tmp_path):
    draw = np.random.default_rng(seed)
    nodes = [name for name in quantizable_nodes(many_operators) if draw.random() < 0.6]
    check_equal(many_operators, pictures, WAYS[seed % 4], tmp_path, nodes)


@pytest.mark.parametrize(
    "name",
    [
        name if name == "cifar10-resnet" else pytest.param(name, marks=pytest.mark.slow)
        for name in supernet_names()
    ],
)
def test_subnets_of_every_family(name, tmp_path):
    net = hwsearch.load_supernet(name, None if name == "cifar10-resnet" else "random:0")
    draw = np.random.default_rng(0)
    for arch in net.space.sample(2, seed=1):
        model = hwsearch.to_onnx(net, arch)
        samples = [probe_inputs(net.input_spec(arch).inputs)]
        nodes = quantizable_nodes(model)
        check_equal(model, samples, U8, tmp_path)
        check_equal(model, samples, U8, tmp_path, [n for n in nodes if draw.random() < 0.5])


def test_a_bias_beyond_32_bits_widens_the_scale_of_its_weight(many_operators, pictures, tmp_path):
    model = onnx.ModelProto()
    model.CopyFrom(many_operators)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors["b4"].CopyFrom(numpy_helper.from_array(np.full(10, 3e6, np.float32), "b4"))
    tensors["w1"].CopyFrom(numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w1"))
    check_equal(model, pictures, U8, tmp_path)


def test_no_node_leaves_the_model(many_operators, pictures):
    ranges, _ = activation_ranges(many_operators, activations(many_operators), pictures)
    written = Int8Writer(many_operators, ranges, U8).write([])
    assert parts(written) == parts(many_operators)


def test_one_writer_for_many_sets_of_nodes(many_operators, pictures):
    ranges, _ = activation_ranges(many_operators, activations(many_operators), pictures)
    writer, nodes = Int8Writer(many_operators, ranges, U8), quantizable_nodes(many_operators)
    writer.write(nodes[::2])
    again = Int8Writer(many_operators, ranges, U8).write()
    assert parts(writer.write()) == parts(again)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_without_a_finite_range_is_named(value, many_operators):
    samples = [{"x": np.full((1, 3, 8, 8), value, np.float32)}]
    with pytest.raises(EvaluationError, match=r"x has values from .* no scale of int8 holds"):
        quantize_int8(many_operators, samples, U8)


def test_constant_zeros(many_operators, pictures):
    zeros = [{"x": np.zeros((2, 3, 8, 8), np.float32)}]
    written = quantize_int8(many_operators, zeros, U8)
    scales = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    assert scales["x_scale"] == 1
    assert scales["x_zero_point"] == 0


def test_an_opset_without_scales_for_each_channel(many_operators):
    model = onnx.ModelProto()
    model.CopyFrom(many_operators)
    model.opset_import[0].version = 12
    with pytest.raises(EvaluationError, match=r"has opset 12, and int8 .* begins with 13"):
        quantize_int8(model, [], U8)
