"""A file says its precision, or shows it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import InputError
from hwsearch.models.onnx_file import PRECISIONS, precision_of, read_model


def model_of(nodes, weights=(), stated=None):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if stated is not None:
        helper.set_model_props(model, {"hwsearch.precision": stated})
    return model


def plain(dtype, stated=None):
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model_of([node], [("w", np.ones(4, dtype))], stated)


def quantized():
    return model_of(
        [
            helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
        ],
        [("scale", np.float32(0.1))],
    )


def constant():
    tensor = numpy_helper.from_array(np.ones(4, np.float16))
    return model_of([helper.make_node("Constant", [], ["y"], value=tensor)])


CASES = [
    (plain(np.float32), "fp32"),
    (plain(np.float16), "fp16"),
    (constant(), "fp16"),
    (quantized(), "int8"),
    *[(plain(np.float32, stated), stated) for stated in PRECISIONS],
]


@pytest.mark.parametrize(("model", "precision"), CASES)
def test_precision(model, precision, tmp_path):
    assert precision_of(model) == precision
    onnx.save(model, tmp_path / "model.onnx")
    assert precision_of(read_model(tmp_path / "model.onnx")) == precision


@pytest.mark.parametrize("operator", ["QLinearConv", "MatMulInteger", "DynamicQuantizeLinear"])
def test_operators_on_integers(operator):
    assert precision_of(model_of([helper.make_node(operator, ["x"], ["y"])])) == "int8"


def test_weights_in_another_file_are_not_needed(tmp_path):
    path = tmp_path / "model.onnx"
    big = plain(np.float16)
    big.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(4096, np.float16), "w"))
    onnx.save(big, path, save_as_external_data=True, location="weights.bin")
    (tmp_path / "weights.bin").unlink()
    assert precision_of(read_model(path)) == "fp16"


def test_unknown_precision():
    with pytest.raises(InputError, match="unknown precision 'int3'; known: int4, int8"):
        precision_of(plain(np.float32, "int3"))
