"""Small ONNX files for tests: ordinary ones, and ones that make a runtime fail."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def write(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def conv(path: Path, *, channels=8, batch="batch", size=8, precision="fp32", nan=False) -> Path:
    rng = np.random.default_rng(channels)
    weight = rng.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    if nan:
        weight[0, 0, 0, 0] = np.nan
    before, weights = _cast("image", "weight", weight, precision)
    return write(
        path,
        [
            *before,
            helper.make_node(
                "Conv",
                ["image_ready", "weight_ready"],
                ["stem/conv"],
                "stem/Conv",
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", ["stem/conv"], ["stem/relu"], "stem/Relu"),
            helper.make_node("GlobalAveragePool", ["stem/relu"], ["pooled"]),
            helper.make_node("Cast", ["pooled"], ["scores"], to=TensorProto.FLOAT),
        ],
        [("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [("scores", TensorProto.FLOAT, [batch, channels, 1, 1])],
        weights,
    )


def tokens(path: Path, *, length=5, vocabulary=3, precision="fp32") -> Path:
    table = np.random.default_rng(0).standard_normal((vocabulary, 4)).astype(np.float32)
    before, weights = _cast(None, "weight", table, precision)
    return write(
        path,
        [
            *before,
            helper.make_node("Gather", ["weight_ready", "ids"], ["embedded"]),
            helper.make_node("ReduceMean", ["embedded"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("Cast", ["mean"], ["scores"], to=TensorProto.FLOAT),
        ],
        [("ids", TensorProto.INT64, ["batch", length])],
        [("scores", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )


def elementwise(path: Path, *operators, dtype=TensorProto.FLOAT, shape=("batch", 4)) -> Path:
    """A model that applies operators one after another."""
    names = ["x", *(f"y{i}" for i in range(1, len(operators))), "y"]
    chain = zip(operators, names, names[1:], strict=False)
    nodes = [helper.make_node(operator, [a], [b]) for operator, a, b in chain]
    return write(path, nodes, [("x", dtype, shape)], [("y", dtype, shape)])


def _cast(image, name, weight, precision):
    """Bring an image and a weight into a precision: the nodes, and what they read."""
    ready = [each for each in (image, name) if each]
    if precision == "int8":
        scale = np.array(np.abs(weight).max() / 127, np.float32)
        stored = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        nodes = [helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_ready"])]
        if image:
            nodes += [
                helper.make_node("QuantizeLinear", [image, "scale", "zero"], ["quantised"]),
                helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"],
                                 [f"{image}_ready"]),
            ]  # fmt: skip
        return nodes, [(name, stored), ("scale", scale), ("zero", np.array(0, np.int8))]
    dtype = {"fp32": np.float32, "fp16": np.float16}[precision]
    to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Cast", [each], [f"{each}_ready"], to=to) for each in ready]
    return nodes, [(name, weight.astype(dtype))]


def endless(path: Path) -> Path:
    """A model that runs for ever: a loop of 2**62 additions."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["before", "step"], ["after"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "step")],
    )
    return write(
        path,
        [helper.make_node("Loop", ["trips", "go", "start"], ["end"], body=body)],
        [("start", TensorProto.FLOAT, [1])],
        [("end", TensorProto.FLOAT, [1])],
        [("trips", np.array(2**62)), ("go", np.array(True))],
    )


def greedy(path: Path) -> Path:
    """A model that asks for four petabytes."""
    return write(
        path,
        [
            helper.make_node("Expand", ["start", "shape"], ["huge"]),
            helper.make_node("ReduceMax", ["huge"], ["end"], keepdims=0),
        ],
        [("start", TensorProto.FLOAT, [1])],
        [("end", TensorProto.FLOAT, [])],
        [("shape", np.array([2**50]))],
    )


def garbage(path: Path) -> Path:
    path.write_bytes(b"this is no model")
    return path
