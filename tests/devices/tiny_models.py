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


def conv(path: Path, *, channels=8, batch="batch", size=8) -> Path:
    rng = np.random.default_rng(channels)
    weight = rng.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    return write(
        path,
        [
            helper.make_node("Conv", ["image", "weight"], ["conv"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("GlobalAveragePool", ["relu"], ["scores"]),
        ],
        [("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [("scores", TensorProto.FLOAT, [batch, channels, 1, 1])],
        [("weight", weight)],
    )


def tokens(path: Path, *, length=5, vocabulary=3) -> Path:
    table = np.random.default_rng(0).standard_normal((vocabulary, 4)).astype(np.float32)
    return write(
        path,
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"]),
            helper.make_node("ReduceMean", ["embedded"], ["scores"], axes=[1], keepdims=0),
        ],
        [("ids", TensorProto.INT64, ["batch", length])],
        [("scores", TensorProto.FLOAT, ["batch", 4])],
        [("table", table)],
    )


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
