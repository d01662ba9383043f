"""Serialised ONNX models, written field by field into one buffer.

`onnx.ModelProto.SerializeToString` of 60 MB of weights takes 60 to 100 ms: every tensor is copied
into the message first, and fresh memory for the growing output is touched several times. Here each
weight is copied once, from where it is sliced. The bytes are the same: fields in the order of
their numbers (https://protobuf.dev/programming-guides/encoding).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_LENGTH_DELIMITED = 2
_GRAPH, _NODE, _INITIALIZER, _RAW_DATA = 7, 1, 5, 9  # field numbers in onnx.proto
_PACKED = {  # types of which one byte holds several, or that have no raw data
    value
    for name, value in onnx.TensorProto.DataType.items()
    if name == "STRING" or name.startswith(("INT4", "UINT4", "INT2", "UINT2", "FLOAT4"))
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A serialised initialiser.

    Attributes:
        head: The fields before the data, or the whole message.
        nbytes: Of the data.
        data: Returns the data when they are written; None if there are none behind the head.
    """

    head: bytes
    nbytes: int
    data: Callable[[], NDArray[Any]] | None

    @property
    def size(self) -> int:
        """Return the bytes of the message."""
        return len(self.head) + self.nbytes


def tensor(name: str, array: NDArray[Any]) -> Tensor:
    """Return an array as an initialiser; it is not copied before it is written."""
    return later(name, array.dtype, array.shape, lambda: array)


def later(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], data: Callable[[], NDArray[Any]]
) -> Tensor:
    """Return an initialiser whose array, of this type and shape, is made when it is written."""
    kind = _raw_type(dtype)
    if kind is None:
        whole = numpy_helper.from_array(data(), name).SerializeToString(deterministic=True)
        return Tensor(whole, 0, None)
    nbytes = math.prod(shape) * dtype.itemsize
    head = onnx.TensorProto(dims=shape, data_type=kind, name=name).SerializeToString()
    return Tensor(head + _head(_RAW_DATA, nbytes), nbytes, data)


def model(
    given: onnx.ModelProto,
    nodes: Iterable[bytes],
    initialisers: Iterable[Tensor],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> memoryview:
    """Return a serialised model, the content of its file.

    Args:
        given: The model that versions, opsets, functions and names are taken from.
        nodes: Serialised, in topological order.
        initialisers: In the order of the file.
        inputs: Of the graph.
        outputs: Of the graph.
    """
    graph = [part for node in nodes for part in (_head(_NODE, len(node)), node)]
    graph.append(onnx.GraphProto(name=given.graph.name).SerializeToString())
    tensors = list(initialisers)
    heads = [_head(_INITIALIZER, each.size) + each.head for each in tensors]
    values = onnx.GraphProto(input=inputs, output=outputs).SerializeToString(deterministic=True)
    size = sum(map(len, (*graph, *heads, values))) + sum(each.nbytes for each in tensors)
    before, after = onnx.ModelProto(), onnx.ModelProto()
    for field, value in given.ListFields():
        if field.number < _GRAPH:
            setattr(before, field.name, value)
    after.opset_import.extend(given.opset_import)
    after.functions.extend(given.functions)
    start, end = (each.SerializeToString(deterministic=True) for each in (before, after))
    start += _head(_GRAPH, size)
    # NumPy asks for large pages: touching fresh memory is most of the time.
    content = np.empty(len(start) + size + len(end), np.uint8)
    at = _write(content, 0, b"".join((start, *graph)))
    for head, each in zip(heads, tensors, strict=True):
        at = _write(content, at, head)
        if each.data is not None:
            raw = np.ascontiguousarray(each.data()).reshape(-1).view(np.uint8)
            content[at : at + each.nbytes] = raw
            at += each.nbytes
    _write(content, at, values + end)
    return content.data


def parsed(content: memoryview) -> onnx.ModelProto:
    """Return the model of what `model` wrote."""
    found: onnx.ModelProto = onnx.ModelProto.FromString(content)
    return found


def _write(content: NDArray[np.uint8], at: int, part: bytes) -> int:
    """Copy bytes to a position; return the position behind them."""
    content[at : at + len(part)] = np.frombuffer(part, np.uint8)
    return at + len(part)


@lru_cache(maxsize=64)
def _raw_type(dtype: np.dtype[Any]) -> int | None:
    """Return the type of tensors whose raw data are the bytes of an array of this type."""
    try:
        kind = helper.np_dtype_to_tensor_dtype(dtype)
    except (ValueError, KeyError):
        return None
    if kind in _PACKED or dtype.hasobject or dtype.byteorder == ">":
        return None
    return int(kind)


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
