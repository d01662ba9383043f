"""Serialised ONNX models, written field by field so that each weight is copied once.

`onnx.ModelProto.SerializeToString` of 60 MB of weights takes 60 to 100 ms, since every tensor is
copied into the message first and the output grows by doubling. The bytes are the same as its:
fields in the order of their numbers (https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Piece: TypeAlias = "bytes | memoryview"
_LENGTH_DELIMITED = 2
_GRAPH, _NODE, _INITIALIZER, _RAW_DATA = 7, 1, 5, 9  # field numbers in onnx.proto
_PACKED = {  # types of which one byte holds several, or that have no raw data
    value
    for name, value in onnx.TensorProto.DataType.items()
    if name == "STRING" or name.startswith(("INT4", "UINT4", "INT2", "UINT2", "FLOAT4"))
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A serialised initialiser: the pieces of its message and their bytes in all."""

    pieces: tuple[Piece, ...]
    size: int


def tensor(name: str, array: NDArray[Any]) -> Tensor:
    """Return an array as an initialiser; its data is not copied if it is contiguous."""
    try:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    except (ValueError, KeyError):
        kind = None
    if kind is None or not _is_raw(kind, array.dtype):
        whole = numpy_helper.from_array(array, name).SerializeToString(deterministic=True)
        return Tensor((whole,), len(whole))
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    head = onnx.TensorProto(dims=array.shape, data_type=kind, name=name).SerializeToString()
    head += _head(_RAW_DATA, len(data))
    return Tensor((head, data), len(head) + len(data))


def model(
    given: onnx.ModelProto,
    nodes: Iterable[bytes],
    initialisers: Iterable[Tensor],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> bytes:
    """Return a serialised model.

    Args:
        given: The model that versions, opsets, functions and names are taken from.
        nodes: Serialised, in topological order.
        initialisers: In the order of the file.
        inputs: Of the graph.
        outputs: Of the graph.
    """
    body: list[Piece] = []
    size = 0
    for node in nodes:
        body += (_head(_NODE, len(node)), node)
        size += len(body[-2]) + len(node)
    name = onnx.GraphProto(name=given.graph.name).SerializeToString()
    body.append(name)
    size += len(name)
    for each in initialisers:
        body.append(_head(_INITIALIZER, each.size))
        size += len(body[-1]) + each.size
        body += each.pieces
    values = onnx.GraphProto(input=inputs, output=outputs).SerializeToString(deterministic=True)
    size += len(values)
    before, after = onnx.ModelProto(), onnx.ModelProto()
    before.CopyFrom(given)
    for field in ("graph", "opset_import", "metadata_props", "training_info", "functions"):
        before.ClearField(field)
    after.opset_import.extend(given.opset_import)
    after.functions.extend(given.functions)
    start, end = (each.SerializeToString(deterministic=True) for each in (before, after))
    return b"".join((start, _head(_GRAPH, size), *body, values, end))


def _is_raw(kind: int, dtype: np.dtype[Any]) -> bool:
    """Return whether raw data of a type are the bytes of its array."""
    return kind not in _PACKED and not dtype.hasobject and dtype.byteorder != ">"


def _head(field: int, size: int) -> bytes:
    """Return tag and length of a length-delimited field."""
    return bytes((field << 3 | _LENGTH_DELIMITED,)) + _varint(size)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
