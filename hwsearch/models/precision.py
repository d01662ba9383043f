"""The precision of an ONNX model, from its metadata or else its types."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from hwsearch.errors import InputError, unknown
from hwsearch.models.onnx_file import read_model

PRECISIONS = ("fp32", "fp16", "int8")
ENTRY = "hwsearch.precision"
_QUANTIZED = frozenset(
    (
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
        "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    )
)  # fmt: skip


def precision_of(model: onnx.ModelProto | Path) -> str:
    """Return the precision of a model or an ONNX file: one of `PRECISIONS`.

    Without the metadata entry ``hwsearch.precision`` a model is int8 if it quantises, fp16 if it
    has weights of that type, else fp32. External data is not read.

    Raises:
        InputError: The file cannot be read as a model, or states an unknown precision.
    """
    read = _read(model) if isinstance(model, Path) else model
    stated: str | None = next(
        (prop.value for prop in read.metadata_props if prop.key == ENTRY), None
    )
    if stated is None:
        return _by_content(read.graph)
    if stated not in PRECISIONS:
        named = f"precision of {str(model)!r}" if isinstance(model, Path) else "precision"
        raise unknown(named, stated, PRECISIONS, "Export the model again with this version.")
    return stated


def _read(path: Path) -> onnx.ModelProto:
    try:
        return read_model(path)
    except Exception as error:
        # protobuf's own error class has no types
        raise InputError(f"{str(path)!r} is no ONNX model: {error}") from error


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
