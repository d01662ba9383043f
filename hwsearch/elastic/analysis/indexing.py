"""Rules for operators that take some elements: Split, Slice and Gather."""

import numpy as np
import onnx

from hwsearch.elastic.analysis.atoms import Layer, aligned
from hwsearch.elastic.analysis.flow import (
    Flow,
    NotUnderstoodError,
    Rules,
    attributes,
    constant_list,
    known_shape,
)
from hwsearch.elastic.analysis.integers import Integer, Integers, Target, values

MOST_INDICES = 4096  # of channels in a Gather


def split(flow: Flow, node: onnx.NodeProto) -> None:
    """Split the atoms, and demand that the sizes follow."""
    layers, shape = flow.layers(node.input[0]), known_shape(flow, node.input[0])
    given = attributes(node)
    axis = given.get("axis", 0) % len(shape)
    parts = [known_shape(flow, name)[axis] if name else 0 for name in node.output]
    stored = flow.integers_of(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if stored is None and "split" in given:
        from_attribute = [
            Integer(n, Target(node.name, "split", i)) for i, n in enumerate(given["split"])
        ]
        stored = np.array(from_attribute, object)
    if stored is not None:
        parts = [integer.value for integer in stored]
    if sum(parts) != shape[axis]:
        raise NotUnderstoodError("the sizes of its parts are not known")
    ends = np.cumsum(parts)
    begins = ends - parts
    for layer in layers:
        if layer.shape[axis] > 1 and stored is None:
            _equal_parts(flow, node, layer, axis, parts)
    for number, (name, low, high) in enumerate(zip(node.output, begins, ends, strict=True)):
        pieces = [
            layer.take(range(low, high), axis) if layer.shape[axis] > 1 else layer
            for layer in layers
        ]
        flow.give(name, pieces, node.name)
        if stored is not None:
            flow.demand(stored[number], layers, axis, node, (int(low), int(high)))


def _equal_parts(
    flow: Flow, node: onnx.NodeProto, layer: Layer, axis: int, parts: list[int]
) -> None:
    """Join the channels at the same place of each part, which are equal by definition."""
    if len(set(parts)) != 1:
        flow.atoms.pin(layer, node.name, "it splits them into unequal parts")
        return
    size = parts[0]
    first = layer.take(range(size), axis)
    for number in range(1, len(parts)):
        part = layer.take(range(number * size, (number + 1) * size), axis)
        flow.atoms.join(first, part, node.name)


def slice_axes(flow: Flow, node: onnx.NodeProto) -> None:
    """Slice the atoms, and demand that starts and ends follow."""
    layers, shape = flow.layers(node.input[0]), known_shape(flow, node.input[0])
    rank = len(shape)
    starts, ends = (flow.integers_of(name) for name in node.input[1:3])
    if starts is None or ends is None:
        raise NotUnderstoodError("what it slices is only known when the model runs")
    given = len(node.input) > 3 and node.input[3]
    axes = constant_list(flow, node.input[3]) if given else list(range(starts.size))
    stepped = len(node.input) > 4 and node.input[4]
    steps = constant_list(flow, node.input[4]) if stepped else [1] * len(axes)
    found = list(layers)
    for start, end, each, step in zip(
        starts.reshape(-1), ends.reshape(-1), axes, steps, strict=True
    ):
        axis = each % rank
        if step != 1:
            found = flow.collapsed(tuple(found), {axis}, node, "it takes only some of them")
            continue
        low, high, _ = slice(start.value, end.value).indices(shape[axis])
        for bound, at in ((start, low), (end, high)):
            _demand_bound(flow, node, bound, at, layers, axis, shape[axis])
        found = [
            layer.take(range(low, max(low, high)), axis) if layer.shape[axis] > 1 else layer
            for layer in found
        ]
    flow.give(node.output[0], found, node.name)


def _demand_bound(
    flow: Flow, node: onnx.NodeProto, bound: Integer, at: int, layers: tuple[Layer, ...],
    axis: int, size: int,
) -> None:  # fmt: skip
    """Demand that a start or end at a position moves with what is removed before it."""
    if bound.value < 0:
        # It counts from the end; beyond the start it stays beyond it only if it does not move.
        if bound.value >= -size:
            flow.demand(bound, layers, axis, node, (at, size), sign=-1)
        else:
            flow.demand(bound, (), axis, node)
    elif bound.value >= size and bound.target is not None:
        flow.demand(bound, (), axis, node)
    else:
        flow.demand(bound, layers, axis, node, (0, at))


def gather(flow: Flow, node: onnx.NodeProto) -> None:
    """Take atoms at constant indices; for an embedding make new ones."""
    data, index = node.input[:2]
    shape = known_shape(flow, data)
    axis = attributes(node).get("axis", 0) % len(shape)
    picked = known_shape(flow, index)
    if flow.is_constant(data) and flow.graph.weights[data].dtype.kind == "f":
        _embedding(flow, node, shape, axis, len(picked))
        return
    layers = flow.layers(data)
    stored = flow.integers_of(index, MOST_INDICES)
    if stored is None:
        reason = "which of them are taken is only known when the model runs"
        layers = tuple(flow.collapsed(layers, {axis}, node, reason))
    found = []
    for layer in layers:
        if stored is None or layer.shape[axis] == 1:
            found.append(_spread(layer, axis, len(picked)))
            continue
        taken = _taken(flow, node, stored, layer, axis)
        if taken is not None:
            found.append(taken)
    flow.give(node.output[0], found, node.name)


def _taken(
    flow: Flow, node: onnx.NodeProto, stored: Integers, layer: Layer, axis: int
) -> Layer | None:
    """Return the atoms at constant indices, which are renumbered and sliced with the axis."""
    size = layer.shape[axis]
    sliceable = flow.is_constant(node.input[1]) and not flow.is_shared(node.input[1])
    if stored.ndim > 1 or (stored.ndim == 1 and not sliceable):
        left = flow.collapse(layer, {axis}, node, "its indices cannot be sliced")
        return None if left is None else _spread(left, axis, stored.ndim)
    for integer in stored.reshape(-1):
        at = integer.value % size
        span, sign = ((0, at), 1) if integer.value >= 0 else ((at, size), -1)
        flow.demand(integer, (layer,), axis, node, span, sign)
    found: Layer = layer.take(
        np.array(values(stored), np.int64).reshape(stored.shape) % size, axis
    )
    if stored.ndim == 1:
        along = [0 if a == axis else None for a in range(found.ndim)]
        flow.slot(node.input[1], found, along, node, "through")
    return found


def _spread(layer: Layer, axis: int, rank: int) -> Layer:
    """Return a layer with ``rank`` axes of size 1 in place of one."""
    return layer.reshape(layer.shape[:axis] + (1,) * rank + layer.shape[axis + 1 :])


def _embedding(
    flow: Flow, node: onnx.NodeProto, shape: tuple[int, ...], axis: int, rank: int
) -> None:
    found = []
    for other, size in enumerate(shape):
        if other == axis or size == 1 or flow.is_shared(node.input[0]):
            continue
        layer = flow.new_along(node.input[0], other, node, "out")
        found.append(_spread(layer, axis, rank))
    flow.give(node.output[0], found, node.name)


def gather_nd(flow: Flow, node: onnx.NodeProto) -> None:
    """Keep atoms on axes that the indices do not reach."""
    picked = known_shape(flow, node.input[1])
    batch = attributes(node).get("batch_dims", 0)
    reached = batch + picked[-1]
    reason = "which of them are taken is only known when the model runs"
    kept = flow.collapsed(flow.layers(node.input[0]), set(range(reached)), node, reason)
    rank = len(known_shape(flow, node.output[0]))
    flow.give(
        node.output[0], [aligned(layer.reshape(layer.shape[reached:]), rank) for layer in kept],
        node.name,
    )  # fmt: skip


RULES: Rules = {
    "Gather": gather,
    "GatherND": gather_nd,
    "Slice": slice_axes,
    "Split": split,
}
