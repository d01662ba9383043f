"""Rules for operators that rearrange elements: the atoms are rearranged in the same way."""

import math

import numpy as np
import onnx

from hwsearch.elastic.analysis.atoms import Layer, aligned, first_along, reshaped, varying
from hwsearch.elastic.analysis.flow import (
    Flow,
    NotUnderstoodError,
    Rules,
    attributes,
    constant_list,
    known_shape,
)
from hwsearch.elastic.analysis.integers import sizes


def reshape_to(flow: Flow, node: onnx.NodeProto) -> tuple[int, ...]:
    """Give the result of a node that only reshapes its layers; return its shape."""
    old, new = (known_shape(flow, name) for name in (node.input[0], node.output[0]))
    if math.prod(old) != math.prod(new) or not math.prod(old):
        raise NotUnderstoodError(f"it changes the shape {old} to {new}")
    layers = flow.layers(node.input[0])
    flow.give(node.output[0], [reshaped(layer, old, new) for layer in layers], node.name)
    return new


def reshape(flow: Flow, node: onnx.NodeProto) -> None:
    """Rearrange, and demand that the target follows."""
    old, new = flow.layers(node.input[0]), reshape_to(flow, node)
    target = flow.integers_of(node.input[1])
    layers = flow.layers(node.output[0])
    if target is None or target.size != len(new):
        raise NotUnderstoodError("its target shape is not known")
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
    reshape_to(flow, node)


def transpose(flow: Flow, node: onnx.NodeProto) -> None:
    """Permute axes."""
    order = attributes(node).get("perm")
    layers = flow.layers(node.input[0])
    flow.give(node.output[0], [layer.transpose(order) for layer in layers], node.name)


def concat(flow: Flow, node: onnx.NodeProto) -> None:
    """Put the atoms of the operands behind one another."""
    names = list(node.input)
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
    return tuple(
        flow.new_along(name, axis, node, "through")
        for axis, size in enumerate(known_shape(flow, name))
        if size > 1
    )


def tile(flow: Flow, node: onnx.NodeProto) -> None:
    """Repeat the atoms."""
    repeats = constant_list(flow, node.input[1])
    found = [
        np.tile(
            layer, [n if size > 1 else 1 for n, size in zip(repeats, layer.shape, strict=True)]
        )
        for layer in flow.layers(node.input[0])
    ]
    flow.give(node.output[0], found, node.name)


def pad(flow: Flow, node: onnx.NodeProto) -> None:
    """Pad the atoms with ones that stay."""
    layers, rank = flow.layers(node.input[0]), len(known_shape(flow, node.input[0]))
    given = attributes(node)
    amounts = given["pads"] if "pads" in given else constant_list(flow, node.input[1])
    listed = len(node.input) > 3 and node.input[3]
    axes = [a % rank for a in constant_list(flow, node.input[3])] if listed else list(range(rank))
    widths = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        widths[axis] = (amounts[position], amounts[position + len(axes)])
    changed = {axis for axis, width in enumerate(widths) if width != (0, 0)}
    if given.get("mode", "constant") != "constant" or min(map(min, widths)) < 0:
        found = flow.collapsed(layers, changed, node, "it pads across them")
    else:
        found = [
            np.pad(
                layer, [w if n > 1 else (0, 0) for w, n in zip(widths, layer.shape, strict=True)]
            )
            for layer in layers
        ]
    flow.give(node.output[0], found, node.name)


def resize(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass axes on that keep their size, and demand that a target size follows."""
    old, new = known_shape(flow, node.input[0]), known_shape(flow, node.output[0])
    changed = {axis for axis in range(len(old)) if old[axis] != new[axis]}
    kept = flow.collapsed(flow.layers(node.input[0]), changed, node, "it resizes along them")
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
    kept = flow.collapsed(layers, {2, 3}, node, "it moves them to channels")
    repeats = attributes(node)["blocksize"] ** 2
    found = [np.tile(each, (1, repeats, 1, 1)) if each.shape[1] > 1 else each for each in kept]
    flow.give(node.output[0], found, node.name)


def _blocks(flow: Flow, node: onnx.NodeProto, mode: str) -> None:
    layers = flow.layers(node.input[0])
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
    "Pad": pad,
    "Reshape": reshape,
    "Resize": resize,
    "SpaceToDepth": space_to_depth,
    "Squeeze": same_elements,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": same_elements,
    "Upsample": resize,
}
