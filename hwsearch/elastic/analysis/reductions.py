"""Rules for operators that mix elements along axes: reductions, norms, softmax and pooling."""

import onnx

from hwsearch.elastic.analysis.atoms import Layer, first_along, varying
from hwsearch.elastic.analysis.flow import (
    Flow,
    NotUnderstoodError,
    Rules,
    attributes,
    axes_of,
    known_shape,
)
from hwsearch.elastic.analysis.integers import Integer, Target


def reduction(flow: Flow, node: onnx.NodeProto) -> None:
    """Reduce along axes: units must not lie on these."""
    layers, rank = flow.layers(node.input[0]), len(known_shape(flow, node.input[0]))
    given = attributes(node)
    axes = axes_of(flow, node, rank)
    if not axes:
        if given.get("noop_with_empty_axes"):
            flow.give(node.output[0], layers, node.name)
            return
        axes = tuple(range(rank))
    _reduce(flow, node, axes, keep=bool(given.get("keepdims", 1)))


def argument(flow: Flow, node: onnx.NodeProto) -> None:
    """Reduce along one axis: ArgMax, ArgMin."""
    given = attributes(node)
    axis = given.get("axis", 0) % len(known_shape(flow, node.input[0]))
    _reduce(flow, node, (axis,), keep=bool(given.get("keepdims", 1)))


def _reduce(flow: Flow, node: onnx.NodeProto, axes: tuple[int, ...], *, keep: bool) -> None:
    layers = flow.layers(node.input[0])
    left = flow.collapsed(layers, set(axes), node, f"{node.op_type} reduces them to one value")
    if not keep:
        left = [layer.squeeze(axes) for layer in left]
    flow.give(node.output[0], left, node.name)


def _mixed(flow: Flow, node: onnx.NodeProto, axes: set[int], verb: str) -> list[Layer]:
    """Return the layers of the input that are left when elements along axes are mixed."""
    return flow.collapsed(flow.layers(node.input[0]), axes, node, f"{node.op_type} {verb}")


def softmax(flow: Flow, node: onnx.NodeProto) -> None:
    """Normalise along an axis; before opset 13 along all from there on."""
    rank = len(known_shape(flow, node.input[0]))
    old = flow.opset < 13
    axis = attributes(node).get("axis", 1 if old else -1) % rank
    axes = set(range(axis, rank)) if old else {axis}
    flow.give(node.output[0], _mixed(flow, node, axes, "normalises over them"), node.name)


def along_axis(flow: Flow, node: onnx.NodeProto) -> None:
    """Mix along one axis: LpNormalization, CumSum."""
    rank = len(known_shape(flow, node.input[0]))
    axis = attributes(node).get("axis", -1)
    axes = {axis % rank} if node.op_type == "LpNormalization" else set(range(rank))
    flow.give(node.output[0], _mixed(flow, node, axes, "mixes them"), node.name)


def layer_normalization(flow: Flow, node: onnx.NodeProto) -> None:
    """Normalise over the last axes; scale and shift are slots of what is left."""
    shape = known_shape(flow, node.input[0])
    axis = attributes(node).get("axis", -1) % len(shape)
    axes = set(range(axis, len(shape)))
    left = _mixed(flow, node, axes, "normalises over them")
    parameters = [(name, known_shape(flow, name), ()) for name in node.input[1:] if name]
    found = flow.merge([("", shape, tuple(left)), *parameters], shape, node)
    flow.give(node.output[0], found, node.name)
    if any(flow.is_read(name) for name in node.output[1:]):
        raise NotUnderstoodError("its mean or deviation is read")


def instance_normalization(flow: Flow, node: onnx.NodeProto) -> None:
    """Normalise each channel over its places."""
    rank = len(known_shape(flow, node.input[0]))
    left = _mixed(flow, node, set(range(2, rank)), "normalises over them")
    if not all(flow.is_constant(name) for name in node.input[1:3]):
        raise NotUnderstoodError("its parameters are computed")
    axes = [0 if axis == 1 else None for axis in range(rank)]
    for layer in left:
        if layer.shape[1] > 1:
            for weight in node.input[1:3]:
                flow.slot(weight, layer, axes, node, "through")
    flow.give(node.output[0], left, node.name)


def group_normalization(flow: Flow, node: onnx.NodeProto) -> None:
    """Normalise groups of channels: a unit is a whole group."""
    if not all(flow.is_constant(name) for name in node.input[1:3]):
        raise NotUnderstoodError("its parameters are computed")
    rank = len(known_shape(flow, node.input[0]))
    groups = attributes(node)["num_groups"]
    if groups == 1:
        left = _mixed(flow, node, set(range(1, rank)), "normalises over them")
        flow.give(node.output[0], left, node.name)
        return
    left = _mixed(flow, node, set(range(2, rank)), "normalises over them")
    for layer in left:
        if varying(layer) != (1,):
            if 1 in varying(layer):
                raise NotUnderstoodError("it normalises channels in parts")
            continue
        blocks = layer.reshape(groups, -1)
        flow.atoms.join_along(blocks, {1}, node.name)
        units = first_along(blocks, {1}).reshape(-1)
        for weight in node.input[1:3]:
            atoms = units if flow.graph.weights[weight].size == groups else layer.reshape(-1)
            flow.slot(weight, atoms, [0], node, "through")
        number = Integer(groups, Target(node.name, "num_groups"))
        flow.demand(number, (units,), 0, node)
    flow.give(node.output[0], left, node.name)


def mean_variance(flow: Flow, node: onnx.NodeProto) -> None:
    """Normalise over the axes of the attribute."""
    axes = attributes(node).get("axes", [0, 2, 3])
    rank = len(known_shape(flow, node.input[0]))
    left = _mixed(flow, node, {axis % rank for axis in axes}, "normalises over them")
    flow.give(node.output[0], left, node.name)


def pooling(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass channels on; units must not lie on places."""
    if len(node.output) > 1 and flow.is_read(node.output[1]):
        raise NotUnderstoodError("its indices are read")
    rank = len(known_shape(flow, node.input[0]))
    flow.give(node.output[0], _mixed(flow, node, set(range(2, rank)), "pools"), node.name)


def channelwise(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass channels of the first input on; the other inputs say where: GridSample, RoiAlign."""
    for name in node.input[1:]:
        flow.pin(flow.layers(name), node, f"{node.op_type} samples at them")
    axes = set(range(len(known_shape(flow, node.input[0])))) - {1}
    flow.give(node.output[0], _mixed(flow, node, axes, "samples along them"), node.name)


RULES: Rules = {
    **dict.fromkeys(
        (
            "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
            "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
        ),
        reduction,
    ),
    **dict.fromkeys(("ArgMax", "ArgMin"), argument),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    **dict.fromkeys(("LpNormalization", "CumSum"), along_axis),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_normalization),
    **dict.fromkeys(
        ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"),
        pooling,
    ),
    **dict.fromkeys(("GridSample", "RoiAlign"), channelwise),
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "MeanVarianceNormalization": mean_variance,
}  # fmt: skip
