"""Rules for convolutions: plain, depthwise, grouped and transposed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from hwsearch.elastic.analysis.atoms import Layer, first_along, varying
from hwsearch.elastic.analysis.flow import Flow, Layers, Product, Rules, attributes, known_shape
from hwsearch.elastic.analysis.integers import Integer, Target
from hwsearch.elastic.graph import Role

# With fewer groups, as many channels are removed from each; with more, whole groups are.
WHOLE_GROUPS = 8


@dataclass(frozen=True, slots=True)
class _Conv:
    """A convolution of ``inputs`` to ``outputs`` channels.

    Attributes:
        axis_in: Axis of the weight for input channels; that of one group or of all.
        axis_out: The same for output channels.
    """

    node: onnx.NodeProto
    groups: int
    inputs: int
    outputs: int
    axis_in: int
    axis_out: int
    rank: int

    def slot(self, flow: Flow, atoms: Layer, axis: int, role: Role) -> None:
        """Record atoms along one axis of the weight."""
        shape = [1] * self.rank
        shape[axis] = atoms.size
        axes = list(range(self.rank))
        flow.slot(self.node.input[1], atoms.reshape(shape), axes, self.node, role)

    def bias(self, flow: Flow, atoms: Layer, role: Role) -> None:
        """Record atoms along the bias, if there is one."""
        if len(self.node.input) > 2 and self.node.input[2]:
            flow.slot(self.node.input[2], atoms.reshape(-1), [0], self.node, role)


def convolution(flow: Flow, node: onnx.NodeProto) -> None:
    """Join input channels with the weight's, and make new atoms for output channels."""
    weight = node.input[1]
    shape, value = known_shape(flow, weight), known_shape(flow, node.input[0])
    groups = attributes(node).get("group", 1)
    transposed = node.op_type == "ConvTranspose"
    outputs = shape[1] * groups if transposed else shape[0]
    conv = _Conv(node, groups, value[1], outputs, int(not transposed), int(transposed), len(shape))
    biased = len(node.input) > 2 and node.input[2]
    fixed = [name for name in (weight, node.input[2] if biased else "") if name]
    usable = all(flow.is_constant(name) and not flow.is_shared(name) for name in fixed)
    channels, kept = _channels(flow, node)
    if not usable:
        reason = "the weight of its consumer is computed or shared"
        flow.pin([channels] if channels is not None else [], node, reason)
        flow.pin([each for name in node.input[1:] for each in flow.layers(name)], node, reason)
        channels, found = None, None
    elif groups == 1:
        found = _plain(flow, conv, channels)
    elif conv.inputs == groups or groups >= WHOLE_GROUPS:
        found = _whole_groups(flow, conv, channels)
    else:
        found = _inside_groups(flow, conv, channels)
    result: list[Layer] = list(kept)
    if found is not None and outputs > 1:
        size = [1] * len(value)
        size[1] = outputs
        result.append(found.reshape(size))
    _count(flow, conv, shape, channels, found)
    flow.give(node.output[0], result, node.name)


def _channels(flow: Flow, node: onnx.NodeProto) -> tuple[Layer | None, Layers]:
    """Return the atoms of the channels, and the layers on the batch axis, which pass."""
    channels, kept = None, []
    for given in flow.layers(node.input[0]):
        places = set(range(2, given.ndim))
        layer = flow.collapse(given, places, node, "a kernel moves over them")
        if layer is not None and varying(layer) == (1,):
            channels = layer.reshape(-1)
        elif layer is not None:
            left = flow.collapse(layer, {1}, node, "a kernel sums over them")
            kept += [] if left is None else [left]
    return channels, tuple(kept)


def _plain(flow: Flow, conv: _Conv, channels: Layer | None) -> Layer | None:
    if channels is not None:
        conv.slot(flow, channels, conv.axis_in, "in")
    return _produced(flow, conv, conv.outputs)


def _produced(flow: Flow, conv: _Conv, number: int) -> Layer | None:
    """Return atoms for all output channels, of which ``number`` are new and the rest repeat."""
    if number == 1:
        return None
    new = flow.atoms.new(number)
    repeated = np.tile(new, conv.outputs // number)
    conv.slot(flow, repeated if conv.axis_out == 0 else new, conv.axis_out, "out")
    conv.bias(flow, repeated, "out")
    return repeated


def _whole_groups(flow: Flow, conv: _Conv, channels: Layer | None) -> Layer | None:
    """Remove a group with its inputs and outputs; a depthwise kernel with its channel."""
    if channels is None:
        # The inputs stay, and so do the groups: each can lose as many outputs as the others.
        return _produced(flow, conv, conv.outputs // conv.groups)
    blocks = channels.reshape(conv.groups, -1)
    flow.atoms.join_along(blocks, {1}, conv.node.name)
    units = first_along(blocks, {1}).reshape(-1)
    found = units.repeat(conv.outputs // conv.groups)
    conv.slot(flow, found if conv.axis_out == 0 else channels, 0, "through")
    conv.bias(flow, found, "through")
    group = Integer(conv.groups, Target(conv.node.name, "group"))
    flow.demand(group, (units,), 0, conv.node)
    return found


def _inside_groups(flow: Flow, conv: _Conv, channels: Layer | None) -> Layer | None:
    """Remove the same channel of every group."""
    if channels is not None:
        blocks = channels.reshape(conv.groups, -1)
        flow.atoms.join_along(blocks, {0}, conv.node.name)
        within = first_along(blocks, {0}).reshape(-1)
        conv.slot(flow, within if conv.axis_in == 1 else channels, conv.axis_in, "in")
    return _produced(flow, conv, conv.outputs // conv.groups)


def _count(
    flow: Flow, conv: _Conv, shape: Sequence[int], channels: Layer | None, found: Layer | None
) -> None:
    """Count MACs: as `hwsearch.models.agreement.count_macs` does."""
    read = known_shape(flow, conv.node.input[0])
    made = known_shape(flow, conv.node.output[0])
    places = (made if conv.axis_out == 0 else read)[2:]
    constant = math.prod(read[:1]) * math.prod(places) * math.prod(shape[2:])
    sizes: list[int] = []
    layers: list[tuple[tuple[Layer, int], ...]] = []
    # One axis of the weight is that of all channels, the other that of a group's.
    whole = conv.inputs == conv.groups or conv.groups >= WHOLE_GROUPS
    for axis, size, atoms in (
        (conv.axis_out, conv.outputs, found),
        (conv.axis_in, conv.inputs, channels),
    ):
        if axis == 1 and conv.groups > 1:
            size //= conv.groups
            if atoms is not None:
                # Whole groups leave the size of a group as it is.
                atoms = None if whole and channels is not None else atoms[:size]
        if atoms is not None and size > 1:
            sizes.append(size)
            layers.append(((atoms, 0),))
        else:
            constant *= size
    flow.products.append(Product(conv.node.name, constant, tuple(sizes), tuple(layers)))


RULES: Rules = {"Conv": convolution, "ConvTranspose": convolution}
