"""Models of matrix products for the tests of writers: all that have a rule, and an encoder."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwsearch.models.weighted_products import WeightedProducts
from tests.elastic.small_models import Builder


def with_weights(builder, inputs, outputs, opset=17):
    """The model of a builder; ``inputs`` and ``outputs`` are name -> shape."""
    values = [
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in each
        ]
        for each in (inputs.items(), outputs.items())
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in builder.weights.items()]
    graph = helper.make_graph(builder.nodes, "products", *values, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def every_product():
    """Products that have a rule, in all forms; K is even, or 1, and no multiple of 32."""
    b = Builder(0)
    for name, shape in {"w1": (70, 66), "w2": (66, 66), "w3": (66, 66), "w4": (1, 5)}.items():
        b.normal(name, *shape)
    b.weights["w1"][:, 3] = 0
    b.weights["w2"][:32, 5] = 0
    b.weights["w2"][:32, 6] = np.abs(b.weights["w2"][:32, 6])
    b.normal("b", 66)
    b.op("MatMul", ["x", "w1"], "a1")
    b.op("MatMul", ["x", "w1"], "a2")  # the same weight and the same data
    b.op("Mul", ["a1", "a2"], "m1")
    b.op("MatMul", ["m1", "w2"], "a3")
    b.op("Gemm", ["a3", "w2"], "g1", alpha=1.0)  # a weight without and with transposition
    b.op("Gemm", ["g1", "w2", "b"], "g2", transB=1)
    b.op("Gemm", ["g2", "w3", "b"], "g3", transB=1)
    b.op("Relu", ["g3"], "sum")
    b.op("ReduceMax", ["sum"], "r", axes=[1], keepdims=1)
    b.op("MatMul", ["r", "w4"], "z")
    return with_weights(b, {"x": [66, 70]}, {"sum": [66, 66], "z": [66, 5]})


def encoder(layers=12, width=24, heads=2, gemm=False):
    """An encoder of transformer layers, with Gemm nodes where ``gemm``, on (n, 7, width)."""
    b, x, ffn = Builder(1), "x", 3 * width

    def linear(x, name, k, n):
        if not gemm:
            return b.linear(x, name, (k, n))
        weight, bias = b.normal(f"{name}.weight", n, k), b.normal(f"{name}.bias", n, scale=0.1)
        flat = b.op("Reshape", [x, b.constant(f"{name}.rows", np.array([-1, k]))], f"{name}.flat")
        made = b.op("Gemm", [flat, weight, bias], f"{name}.gemm", transB=1)
        return b.op("Reshape", [made, b.constant(f"{name}.shape", np.array([-1, 7, n]))], name)

    def split(x, perm):
        name = f"{x}.split"
        b.op("Reshape", [x, b.constant(f"{x}.heads", np.array([0, 0, heads, -1]))], name)
        return b.op("Transpose", [name], f"{name}.t", perm=perm)

    def norm(x, branch, name):
        b.op("Add", [x, branch], f"{name}.sum")
        scale, bias = (
            b.normal(f"{name}.{s}", width, mean=int(m), scale=0.1) for s, m in ("w1", "b0")
        )
        return b.op("LayerNormalization", [f"{name}.sum", scale, bias], name)

    for i in map(str, range(layers)):
        q, k, v = (linear(x, f"{i}.{s}", width, width) for s in "qkv")
        b.op("MatMul", [split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1])], f"{i}.scores")
        b.op("Softmax", [f"{i}.scores"], f"{i}.softmax", axis=-1)
        b.op("MatMul", [f"{i}.softmax", split(v, [0, 2, 1, 3])], f"{i}.context")
        b.op("Transpose", [f"{i}.context"], f"{i}.back", perm=[0, 2, 1, 3])
        b.op("Reshape", [f"{i}.back", b.constant(f"{i}.join", np.array([0, 0, -1]))], f"{i}.join_")
        x = norm(x, linear(f"{i}.join_", f"{i}.out", width, width), f"{i}.norm1")
        b.op("Relu", [linear(x, f"{i}.up", width, ffn)], f"{i}.relu")
        x = norm(x, linear(f"{i}.relu", f"{i}.down", ffn, width), f"{i}.norm2")
    b.op("Identity", [x], "y")
    return with_weights(b, {"x": ["n", 7, width]}, {"y": ["n", 7, width]})


def left_alone():
    """Products without a rule, and the names of two that have one."""
    b = Builder(2)
    for name, shape in {"w": (6, 6), "w3": (1, 6, 6), "input": (6, 6), "bias": (6,)}.items():
        b.normal(name, *shape)
    b.constant("half", b.rng.standard_normal((6, 6)).astype(np.float16))
    b.constant("vector", b.rng.standard_normal(6).astype(np.float32))
    b.op("MatMul", ["x", "x"], "activations")
    b.op("MatMul", ["w", "x"], "constant_data")
    b.op("MatMul", ["w", "w"], "constants")
    b.op("MatMul", ["vector", "w"], "constant_vector")
    b.op("MatMul", ["x", "vector"], "constant_column")
    b.op("MatMul", ["x", "w3"], "three_axes")
    b.op("MatMul", ["x", "input"], "replaceable")
    b.op("Cast", ["x"], "x16", to=onnx.TensorProto.FLOAT16)
    b.op("MatMul", ["x16", "half"], "float16")
    b.op("Gemm", ["x", "w", "bias"], "alpha", alpha=0.5)
    b.op("Gemm", ["x", "w", "bias"], "beta", beta=0.5)
    b.op("Gemm", ["x", "w", "bias"], "transposed_data", transA=1)
    b.op("Gemm", ["x", "x", "bias"], "gemm_of_activations")
    b.op("MatMul", ["x", "w"], "one")
    b.op("Gemm", ["x", "w", "bias"], "two")
    outputs = {node.output[0]: None for node in b.nodes if node.op_type != "Cast"}
    outputs.pop("float16")
    return with_weights(b, {"x": [6, 6], "input": [6, 6]}, outputs), ["one", "two"]


def behind_constants():
    """The product of every_product's first weight, from a Constant and through two Identities."""
    b = Builder(0)
    tensor = numpy_helper.from_array(b.rng.standard_normal((6, 4)).astype(np.float32))
    b.op("Constant", [], "c", value=tensor)
    b.op("Identity", ["c"], "i1")
    b.op("Identity", ["i1"], "i2")
    b.op("MatMul", ["x", "i2"], "y")
    b.op("MatMul", ["x", "c"], "z")
    return with_weights(b, {"x": [3, 6]}, {"y": [3, 4], "z": [3, 4]})


def product_names(model):
    """Names of the nodes that writers of products have a rule for, in their order."""
    return WeightedProducts(model).names()


def parts(model):
    """Nodes and constants by name, in comparable form."""
    nodes = {
        node.name: (
            node.op_type,
            node.domain,
            list(node.input),
            list(node.output),
            sorted((a.name, str(helper.get_attribute_value(a))) for a in node.attribute),
        )
        for node in model.graph.node
    }
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return nodes, {name: (a.dtype, a.shape, a.tobytes()) for name, a in constants.items()}
