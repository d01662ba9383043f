"""Rules for operators that rearrange elements: the atoms are rearranged in the same way."""

import math

import numpy as np
import onnx

from hwsearch.elastic.atoms import Layer, aligned, first_along, reshaped, varying
from hwsearch.elastic.flow import (
    Flow,
    NotUnderstoodError,
    Rules,
    attributes,
    constant_list,
    known_shape,
)
from hwsearch.elastic.integers import Integer, Integers, Target, sizes, values

MOST_INDICES = 4096  # of channels in a Gather


def reshape_to(flow: Flow, node: onnx.NodeProto) -> tuple[int, ...]:
    """Give the result of a node that only reshapes its layers; return its shape."""
    layers = flow.layers(node.input[0])
    new = known_shape(flow, node.output[0])
    if layers:
        old = known_shape(flow, node.input[0])
        if math.prod(old) != math.prod(new) or not math.prod(old):
            raise NotUnderstoodError(f"it changes the shape {old} to {new}")
        flow.give(node.output[0], [reshaped(layer, old, new) for layer in layers], node.name)
    return new


def reshape(flow: Flow, node: onnx.NodeProto) -> None:
    """Rearrange, and demand that the target follows."""
    old, new = flow.layers(node.input[0]), reshape_to(flow, node)
    target = flow.integers_of(node.input[1])
    layers = flow.layers(node.output[0])
    if target is None or target.size != len(new):
        if layers:
            raise NotUnderstoodError("its target shape is not known")
        return
    keeps_zero = attributes(node).get("allowzero", 0)
    own = sizes(known_shape(flow, node.input[0]), old)
    for axis, integer in enumerate(target.reshape(-1)):
        if integer.value == 0 and not keeps_zero and axis < own.size:
            if integer.target is not None:
                flow.demand(integer, (), axis, node)
            flow.demand(own[axis], layers, axis, node)
        elif integer.value == -1:
            flow.demand(integer, (), axis, node)
        else:
            flow.demand(integer, layers, axis, node)


def same_elements(flow: Flow, node: onnx.NodeProto) -> None:
    """Rearrange: Flatten, Squeeze, Unsqueeze."""
    if flow.layers(node.input[0]):
        reshape_to(flow, node)


def transpose(flow: Flow, node: onnx.NodeProto) -> None:
    """Permute axes."""
    order = attributes(node).get("perm")
    layers = flow.layers(node.input[0])
    flow.give(node.output[0], [layer.transpose(order) for layer in layers], node.name)


def concat(flow: Flow, node: onnx.NodeProto) -> None:
    """Put the atoms of the operands behind one another."""
    names = list(node.input)
    if not any(flow.layers(name) for name in names):
        return
    shape = known_shape(flow, node.output[0])
    axis = attributes(node)["axis"] % len(shape)
    # Axes that some layer has together with the one that is concatenated.
    union = {axis}
    layers = [layer for name in names for layer in flow.layers(name)]
    if not any(layer.shape[axis] > 1 for layer in layers):
        union = set()
    while union:
        grown = union.union(*(varying(each) for each in layers if union & set(varying(each))))
        if grown == union:
            break
        union = grown
    found = _behind_one_another(flow, node, axis, union, shape) if union else []
    # Layers on other axes must agree, as for operators that work element by element.
    flat = tuple(1 if a == axis else size for a, size in enumerate(shape))
    outside = [
        (name, flat, tuple(each for each in flow.layers(name) if not union & set(varying(each))))
        for name in names
    ]
    found += flow.merge(outside, flat, node)
    flow.give(node.output[0], found, node.name)


def _behind_one_another(
    flow: Flow, node: onnx.NodeProto, axis: int, union: set[int], shape: tuple[int, ...]
) -> list[Layer]:
    """Return the layer of a concatenation on the axes ``union``, of which ``axis`` is one."""
    pieces, together = [], False
    for name in node.input:
        own = known_shape(flow, name)[axis]
        size = [own if a == axis else shape[a] if a in union else 1 for a in range(len(shape))]
        inside = [each for each in flow.layers(name) if union & set(varying(each))]
        for other in inside[1:]:
            flow.atoms.join(inside[0], other, node.name)
        together |= any(each.shape[axis] == 1 < own for each in inside)
        piece = inside[0] if inside else np.zeros((1,) * len(shape), np.int64)
        pieces.append(np.broadcast_to(piece, size))
    whole = np.concatenate(pieces, axis)
    if not together:
        return [whole]
    # Units of one operand extend along the axis: those of all do.
    left = flow.collapse(whole, {axis}, node, "they are concatenated along their own axis")
    return [] if left is None else [left]


def split(flow: Flow, node: onnx.NodeProto) -> None:
    """Split the atoms, and demand that the sizes follow."""
    layers = flow.layers(node.input[0])
    if not layers:
        return
    shape = known_shape(flow, node.input[0])
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
    layers = flow.layers(node.input[0])
    if not layers:
        return
    shape = known_shape(flow, node.input[0])
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
    found = layer.take(np.array(values(stored), np.int64).reshape(stored.shape) % size, axis)
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
        layer = flow.atoms.new(size).reshape(
            [size if a == other else 1 for a in range(len(shape))]
        )
        flow.slot(node.input[0], layer, list(range(len(shape))), node, "out")
        found.append(_spread(layer, axis, rank))
    flow.give(node.output[0], found, node.name)


def gather_nd(flow: Flow, node: onnx.NodeProto) -> None:
    """Keep atoms on axes that the indices do not reach."""
    layers = flow.layers(node.input[0])
    if not layers:
        return
    picked = known_shape(flow, node.input[1])
    batch = attributes(node).get("batch_dims", 0)
    reached = batch + picked[-1]
    reason = "which of them are taken is only known when the model runs"
    kept = flow.collapsed(layers, set(range(reached)), node, reason)
    rank = len(known_shape(flow, node.output[0]))
    flow.give(
        node.output[0], [aligned(layer.reshape(layer.shape[reached:]), rank) for layer in kept],
        node.name,
    )  # fmt: skip


def expand(flow: Flow, node: onnx.NodeProto) -> None:
    """Broadcast; an axis that gets the size of another value's axis gets its atoms."""
    shape = known_shape(flow, node.output[0])
    layers = [aligned(layer, len(shape)) for layer in _sources(flow, node)]
    target = flow.integers_of(node.input[1])
    if target is None:
        if layers:
            raise NotUnderstoodError("its target shape is not known")
        return
    own = known_shape(flow, node.input[0])
    own = (1,) * (len(shape) - len(own)) + own
    skipped = len(shape) - target.size
    for position, integer in enumerate(target.reshape(-1)):
        axis = position + skipped
        if own[axis] == 1 and integer.value > 1 and not integer.operands:
            for layer in integer.layers:
                if varying(layer) == (integer.axis,):
                    moved = [1] * len(shape)
                    moved[axis] = shape[axis]
                    layers.append(layer.reshape(moved))
    flow.give(node.output[0], layers, node.name)
    for position, integer in enumerate(target.reshape(-1)):
        axis = position + skipped
        if integer.value == 1 and shape[axis] != 1:
            flow.demand(integer, (), axis, node)
        else:
            flow.demand(integer, flow.layers(node.output[0]), axis, node)


def _sources(flow: Flow, node: onnx.NodeProto) -> tuple[Layer, ...]:
    """Return the layers of the first input; a constant, as a class token is, gets new ones."""
    name = node.input[0]
    if not flow.is_constant(name) or flow.is_shared(name):
        return flow.layers(name)
    shape = known_shape(flow, name)
    found = []
    for axis, size in enumerate(shape):
        if size > 1:
            layer = flow.atoms.new(size).reshape(
                [size if a == axis else 1 for a in range(len(shape))]
            )
            flow.slot(name, layer, list(range(len(shape))), node, "through")
            found.append(layer)
    return tuple(found)


def tile(flow: Flow, node: onnx.NodeProto) -> None:
    """Repeat the atoms."""
    layers = flow.layers(node.input[0])
    if not layers:
        return
    repeats = constant_list(flow, node.input[1])
    found = [
        np.tile(
            layer, [n if size > 1 else 1 for n, size in zip(repeats, layer.shape, strict=True)]
        )
        for layer in layers
    ]
    flow.give(node.output[0], found, node.name)


def pad(flow: Flow, node: onnx.NodeProto) -> None:
    """Pad the atoms with ones that stay."""
    layers = flow.layers(node.input[0])
    if not layers:
        return
    shape = known_shape(flow, node.input[0])
    rank = len(shape)
    given = attributes(node)
    amounts = given["pads"] if "pads" in given else constant_list(flow, node.input[1])
    listed = len(node.input) > 3 and node.input[3]
    axes = [a % rank for a in constant_list(flow, node.input[3])] if listed else list(range(rank))
    widths = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        widths[axis] = (amounts[position], amounts[position + len(axes)])
    changed = {axis for axis, width in enumerate(widths) if width != (0, 0)}
    found = []
    for layer in layers:
        touched = changed & set(varying(layer))
        if touched and (given.get("mode", "constant") != "constant" or min(map(min, widths)) < 0):
            layer = flow.collapse(layer, touched, node, "it pads across them")
            touched = set()
        if layer is not None:
            exact = [widths[axis] if axis in touched else (0, 0) for axis in range(rank)]
            found.append(np.pad(layer, exact) if touched else layer)
    flow.give(node.output[0], found, node.name)


def resize(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass axes on that keep their size, and demand that a target size follows."""
    layers = flow.layers(node.input[0])
    if not layers:
        return
    old, new = known_shape(flow, node.input[0]), known_shape(flow, node.output[0])
    changed = {axis for axis in range(len(old)) if old[axis] != new[axis]}
    kept = flow.collapsed(layers, changed, node, "it resizes along them")
    flow.give(node.output[0], kept, node.name)
    if len(node.input) > 3 and node.input[3]:
        target = flow.integers_of(node.input[3])
        if target is None:
            raise NotUnderstoodError("its target sizes are not known")
        axes = attributes(node).get("axes") or range(target.size)
        for integer, axis in zip(target.reshape(-1), axes, strict=True):
            flow.demand(integer, flow.layers(node.output[0]), axis % len(old), node)


def depth_to_space(flow: Flow, node: onnx.NodeProto) -> None:
    """Join the channels that become one."""
    _blocks(flow, node, attributes(node).get("mode", "DCR"))


def space_to_depth(flow: Flow, node: onnx.NodeProto) -> None:
    """Repeat each channel for every place in a block."""
    layers = flow.layers(node.input[0])
    if not layers:
        return
    kept = flow.collapsed(layers, {2, 3}, node, "it moves them to channels")
    repeats = attributes(node)["blocksize"] ** 2
    found = [np.tile(each, (1, repeats, 1, 1)) if each.shape[1] > 1 else each for each in kept]
    flow.give(node.output[0], found, node.name)


def _blocks(flow: Flow, node: onnx.NodeProto, mode: str) -> None:
    layers = flow.layers(node.input[0])
    if not layers:
        return
    kept = flow.collapsed(layers, {2, 3}, node, "channels become places between them")
    number = attributes(node)["blocksize"] ** 2
    found = []
    for layer in kept:
        if layer.shape[1] == 1:
            found.append(layer)
            continue
        batch, channels = layer.shape[:2]
        split_at = (number, channels // number) if mode == "DCR" else (channels // number, number)
        blocks = layer.reshape(batch, *split_at)
        axis = 1 if mode == "DCR" else 2
        flow.atoms.join_along(blocks, {axis}, node.name)
        found.append(first_along(blocks, {axis}).reshape(batch, -1, 1, 1))
    flow.give(node.output[0], found, node.name)


RULES: Rules = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": same_elements,
    "Gather": gather,
    "GatherND": gather_nd,
    "Pad": pad,
    "Reshape": reshape,
    "Resize": resize,
    "Slice": slice_axes,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": same_elements,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": same_elements,
    "Upsample": resize,
}
