"""Evaluation of the nodes that compute shapes, one integer at a time."""

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from hwsearch.elastic.analysis.flow import Flow, attributes, axes_of, constant_list
from hwsearch.elastic.analysis.integers import BINARY, MOST, Integer, Integers, computed, sizes

_INTEGER_TYPES = (
    TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
)  # fmt: skip


def evaluate(flow: Flow, node: onnx.NodeProto) -> bool:
    """Evaluate a node if all that it reads is known integers; return whether it was."""
    found = _evaluated(flow, node)
    if found is None or found.size > MOST:
        return False
    flow.integers[node.output[0]] = found
    return True


def _evaluated(flow: Flow, node: onnx.NodeProto) -> Integers | None:
    if node.op_type in ("Shape", "Size"):
        shape = flow.shape(node.input[0])
        if shape is None:
            return None
        found = sizes(shape, flow.layers(node.input[0]))
        if node.op_type == "Size":
            return _product(found)
        given = attributes(node)
        return found[given.get("start", 0) : given.get("end", len(found))]
    if node.op_type == "Constant":
        return _constant(node)
    rule = _RULES.get(node.op_type)
    if rule is None or not node.input or len(node.output) != 1:
        return None
    inputs = [flow.integers_of(name) if name else None for name in node.input]
    if any(array is None and name for name, array in zip(node.input, inputs, strict=True)):
        return None
    return rule(flow, node, [array for array in inputs if array is not None])


def _constant(node: onnx.NodeProto) -> Integers | None:
    """Return integers that cannot be changed: constants that are no initialisers."""
    given = attributes(node)
    for name in ("value", "value_int", "value_ints"):
        if name in given:
            value = given[name]
            array = onnx.numpy_helper.to_array(value) if name == "value" else np.array(value)
            if array.dtype.kind not in "iub" or array.size > MOST:
                return None
            found = np.empty(array.size, object)
            found[:] = [Integer(int(each)) for each in array.reshape(-1)]
            return found.reshape(array.shape)
    return None


def _product(array: Integers) -> Integers:
    total = Integer(1)
    for each in array.reshape(-1):
        total = computed("Mul", total.value * each.value, total, each)
    found = np.empty((), object)
    found[()] = total
    return found


def _same(_flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    if node.op_type == "Cast" and attributes(node)["to"] not in _INTEGER_TYPES:
        return None
    return inputs[0]


def _reshape(flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    shape = flow.shape(node.output[0])
    return None if shape is None else inputs[0].reshape(shape)


def _gather(_flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    axis = attributes(node).get("axis", 0)
    taken = np.array([each.value for each in inputs[1].reshape(-1)], np.int64)
    found = inputs[0].take(taken.reshape(inputs[1].shape), axis)
    return _array(found, inputs[1].shape)


def _array(found: object, shape: tuple[int, ...]) -> Integers:
    if isinstance(found, np.ndarray):
        return found
    single = np.empty((), object)
    single[()] = found
    return single.reshape(shape)


def _concat(_flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    return np.concatenate(inputs, attributes(node)["axis"])


def _slice(flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    rank = inputs[0].ndim
    starts, ends = (constant_list(flow, name) for name in node.input[1:3])
    more = [constant_list(flow, name) if name else None for name in node.input[3:5]]
    axes = more[0] if more and more[0] is not None else list(range(len(starts)))
    steps = more[1] if len(more) > 1 and more[1] is not None else [1] * len(axes)
    index = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        low, high, by = slice(start, end, step).indices(inputs[0].shape[axis])
        index[axis] = slice(low, None if high < 0 else high, by)
    return inputs[0][tuple(index)]


def _binary(_flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    if len(inputs) != 2:
        return inputs[0] if len(inputs) == 1 else None
    return _array(BINARY[node.op_type](*inputs), ())


def _negated(_flow: Flow, _node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    return _array(BINARY["Sub"](_filled((), 0), inputs[0]), ())


def _filled(shape: tuple[int, ...], value: int) -> Integers:
    found = np.empty(shape, object)
    found[...] = Integer(value)
    return found


def _constant_of_shape(
    _flow: Flow, node: onnx.NodeProto, inputs: list[Integers]
) -> Integers | None:
    shape = tuple(each.value for each in inputs[0].reshape(-1))
    given = attributes(node).get("value")
    value = onnx.numpy_helper.to_array(given).reshape(-1)[0] if given is not None else 0
    # Of floating-point numbers the default is 0.0, which no shape is computed with.
    integral = given is not None and given.data_type in _INTEGER_TYPES
    if not integral or math.prod(shape) > MOST:
        return None
    if any(each.layers or each.operands for each in inputs[0].reshape(-1)):
        return None  # its length is not known before units are removed
    return _filled(shape, int(value))


def _where(flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    condition, yes, no = np.broadcast_arrays(*inputs)
    chosen = []
    for test, first, second in zip(condition.flat, yes.flat, no.flat, strict=True):
        flow.demand(test, (), 0, node)
        chosen.append(first if test.value else second)
    found = np.empty(len(chosen), object)
    found[:] = chosen
    return found.reshape(condition.shape)


def _range(_flow: Flow, _node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    start, limit, delta = (array.reshape(-1)[0] for array in inputs)
    if any(each.layers or each.operands for each in (start, limit, delta)):
        return None  # its length follows what is removed
    numbers = range(start.value, limit.value, delta.value or 1)
    if len(numbers) > MOST:
        return None
    found = np.empty(len(numbers), object)
    found[:] = [Integer(number) for number in numbers]
    return found


def _reduce_product(flow: Flow, node: onnx.NodeProto, inputs: list[Integers]) -> Integers | None:
    found = _product(inputs[0])
    keep = attributes(node).get("keepdims", 1)
    axes = axes_of(flow, node, inputs[0].ndim)
    if inputs[0].ndim != 1 or axes not in (None, (0,)):
        return None
    return found.reshape(1) if keep else found


_RULES: dict[str, Callable[[Flow, onnx.NodeProto, list[Integers]], Integers | None]] = {
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(("Cast", "Identity"), _same),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Neg": _negated,
    "Range": _range,
    "ReduceProd": _reduce_product,
    "Slice": _slice,
    "Where": _where,
}
