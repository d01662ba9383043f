"""MACs and parameters counted from an ONNX model."""

import math
from collections.abc import Callable, Collection
from typing import Any

import onnx
from onnx import TensorProto

from hwsearch.errors import VerificationError

Shape = tuple[int, ...]
_FLOATING = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


def count_macs(model: onnx.ModelProto) -> int:
    """Count the MACs of convolutions and matrix products for one sample."""
    shapes = _shapes_of_one_sample(model)
    return sum(
        _COUNTERS[node.op_type](node, shapes)
        for node in model.graph.node
        if node.op_type in _COUNTERS
    )


def count_params(model: onnx.ModelProto, buffers: Collection[str]) -> int:
    """Count the learned parameters in a model's initialisers, without ``buffers``.

    Floating-point numbers and dequantised integers count; scales and zero points do not.
    """
    learned = {i.name for i in model.graph.initializer if i.data_type in _FLOATING}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            learned -= set(node.input[1:])
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            learned.add(node.input[0])
    return sum(
        math.prod(initialiser.dims)
        for initialiser in model.graph.initializer
        if initialiser.name in learned and initialiser.name not in buffers
    )


def _shapes_of_one_sample(model: onnx.ModelProto) -> dict[str, Shape]:
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(single, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise VerificationError(f"cannot infer the shapes for one sample: {error}") from error
    graph = inferred.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _known(node: onnx.NodeProto, name: str, shapes: dict[str, Shape]) -> Shape:
    if name not in shapes:
        raise VerificationError(f"cannot infer the shape of {name!r}, used by {node.name!r}")
    return shapes[name]


def _conv(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    weight = _known(node, node.input[1], shapes)
    return math.prod(_known(node, node.output[0], shapes)) * math.prod(weight[1:])


def _conv_transpose(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    weight = _known(node, node.input[1], shapes)
    return math.prod(_known(node, node.input[0], shapes)) * math.prod(weight[1:])


def _gemm(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    flags: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    left = _known(node, node.input[0], shapes)
    inner = left[0] if flags.get("transA") else left[1]
    return math.prod(_known(node, node.output[0], shapes)) * inner


def _matmul(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    inner = _known(node, node.input[0], shapes)[-1]
    return math.prod(_known(node, node.output[0], shapes)) * inner


_COUNTERS: dict[str, Callable[[onnx.NodeProto, dict[str, Shape]], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
