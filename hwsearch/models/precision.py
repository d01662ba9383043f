"""The precision of an ONNX model, from its metadata or else its types."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from hwsearch.errors import unknown

PRECISIONS = ("fp32", "fp16", "int8")
ENTRY = "hwsearch.precision"
_QUANTIZED = frozenset(
    (
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
        "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    )
)  # fmt: skip


def precision_of(model: onnx.ModelProto) -> str:
    """Return the precision of a model: one of `PRECISIONS`.

    Without the metadata entry ``hwsearch.precision`` a model is int8 if it quantises, fp16 if it
    has weights of that type, else fp32.

    Raises:
        InputError: It states an unknown precision.
    """
    stated: str | None = next(
        (prop.value for prop in model.metadata_props if prop.key == ENTRY), None
    )
    if stated is None:
        return _by_content(model.graph)
    if stated not in PRECISIONS:
        raise unknown("precision", stated, PRECISIONS, "Export the model again with this version.")
    return stated


def _by_content(graph: onnx.GraphProto) -> str:
    if any(node.op_type in _QUANTIZED for node in graph.node):
        return "int8"
    return "fp16" if TensorProto.FLOAT16 in set(_weight_types(graph)) else "fp32"


def _weight_types(graph: onnx.GraphProto) -> Iterator[int]:
    """Yield the element types of weights, including constants."""
    yield from (initialiser.data_type for initialiser in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t.data_type for attribute in node.attribute)
