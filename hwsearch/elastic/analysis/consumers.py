"""Linear layers that read units: their weights as matrices, and the columns that a unit takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic.analysis.patches import Window
from hwsearch.elastic.graph import Graph, Group, Slot, Structure

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """The constant that a linear layer adds.

    Attributes:
        name: The initialiser.
        node: The node that reads it: the layer, or the ``Add`` after a MatMul.
        scale: What the node multiplies it by (``beta`` of a Gemm).
    """

    name: str
    node: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Linear:
    """A node that multiplies an activation by a weight: a convolution or a matrix product.

    Attributes:
        value: The activation that it reads.
        weight: The initialiser.
        groups: Convolution groups, 1 for a matrix product.
        input_axis: Axis of the weight that is summed over.
        output_axis: Axis of the weight that is produced.
        window: Geometry of a convolution; None for a matrix product.
        rows_axis: Axis of the activation that a matrix product sums over, -1 or -2.
        bias: None if the layer adds no constant, or one of another shape.
        scale: What the node multiplies the product by (``alpha`` of a Gemm).
    """

    node: str
    op: str
    value: str
    weight: str
    groups: int
    input_axis: int
    output_axis: int
    window: Window | None
    rows_axis: int
    bias: Bias | None
    scale: float = 1.0

    @property
    def key(self) -> str:
        """What layers share whose inputs have the same statistics."""
        geometry = "" if self.window is None else str(self.window)
        return f"{self.value}|{self.groups}|{self.rows_axis}|{geometry}"

    def matrix(self, weight: NDArray[Any]) -> NDArray[np.float64]:
        """Return a weight as (convolution groups, rows, input positions, kernel positions)."""
        g = self.groups
        array = np.asarray(weight, np.float64)
        if self.op == "Conv":
            return array.reshape(g, array.shape[0] // g, array.shape[1], -1)
        if self.op == "ConvTranspose":
            split = array.reshape(g, array.shape[0] // g, array.shape[1], -1)
            return split.transpose(0, 2, 1, 3)
        array = array if self.input_axis == 1 else array.T
        return array[None, :, :, None]

    def array(self, matrix: NDArray[np.float64], kernel: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the weight of a matrix as of `matrix`; ``kernel`` is a convolution's shape."""
        g, rows, positions, _ = matrix.shape
        if self.op == "Conv":
            found = matrix.reshape(g * rows, positions, *kernel)
        elif self.op == "ConvTranspose":
            found = matrix.transpose(0, 2, 1, 3).reshape(g * positions, rows, *kernel)
        else:
            found = matrix[0, :, :, 0]
            found = found if self.input_axis == 1 else found.T
        return np.ascontiguousarray(found, np.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Readers:
    """The linear layers of a structure that sum over units.

    Attributes:
        layers: Node -> layer, in the order of the graph.
        positions: Node -> input positions within each convolution group.
        units: Node -> group -> (units, width, 2): convolution group and input position.
    """

    layers: Mapping[str, Linear]
    positions: Mapping[str, int]
    units: Mapping[str, Mapping[str, NDArray[np.int64]]]

    def kept_positions(
        self, node: str, kept: Mapping[str, NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        """Return (convolution groups, input positions): what is left of a layer's input."""
        left = np.ones((self.layers[node].groups, self.positions[node]), bool)
        for name, places in self.units[node].items():
            if name in kept:
                removed = places[~np.asarray(kept[name], bool)]
                left[removed[..., 0], removed[..., 1]] = False
        return left

    def of_group(self, name: str) -> list[Linear]:
        """Return the layers that read units of a group."""
        return [layer for layer in self.layers.values() if name in self.units[layer.node]]


def readers(structure: Structure) -> Readers:
    """Find the linear layers that sum over units of any group."""
    layers = linear_layers(structure.graph)
    units: dict[str, dict[str, NDArray[np.int64]]] = {}
    for group in structure.groups:
        for slot in group.slots:
            layer = layers.get(slot.node)
            if layer is None or slot.role != "in" or slot.weight != layer.weight:
                continue
            if slot.axis == layer.input_axis:
                found = units.setdefault(slot.node, {})
                places = _places(layer, slot, group, structure.graph.weights[layer.weight])
                if group.name in found:
                    places = np.concatenate([found[group.name], places], axis=1)
                found[group.name] = places
    chosen = {name: layer for name, layer in layers.items() if name in units}
    positions = {
        name: layer.matrix(structure.graph.weights[layer.weight]).shape[2]
        for name, layer in chosen.items()
    }
    return Readers(layers=chosen, positions=positions, units=units)


def _places(layer: Linear, slot: Slot, group: Group, weight: NDArray[Any]) -> NDArray[np.int64]:
    """Return (units, width, 2): convolution group and position within it of a slot's units."""
    positions = np.asarray(slot.positions, np.int64).reshape(group.size, -1)
    if layer.groups == 1:
        return np.stack([np.zeros_like(positions), positions], axis=-1)
    if layer.op == "ConvTranspose":  # its axis runs over the channels of all convolution groups
        each = weight.shape[0] // layer.groups
        return np.stack([positions // each, positions % each], axis=-1)
    # A unit is that position of every convolution group.
    every = np.arange(layer.groups)[None, :, None]
    of_each = np.broadcast_to(positions[:, None], (group.size, layer.groups, positions.shape[1]))
    pairs = np.stack([np.broadcast_to(every, of_each.shape), of_each], axis=-1)
    return pairs.reshape(group.size, -1, 2)


def linear_layers(graph: Graph) -> dict[str, Linear]:
    """Return the convolutions and matrix products of an activation by a weight, by node."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.proto.graph.output}
    found = {}
    for node in graph.proto.graph.node:
        if node.op_type in OPERATORS and node.domain in ("", "ai.onnx"):
            alone = users.get(node.output[0], []) if node.output[0] not in outputs else []
            if (layer := _linear(node, graph.weights, alone)) is not None:
                found[node.name] = layer
    return found


def _linear(
    node: onnx.NodeProto, weights: Mapping[str, NDArray[Any]], users: list[onnx.NodeProto]
) -> Linear | None:
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "MatMul":
        return _matrix_product(node, weights, users)
    value, weight = node.input[0], node.input[1]
    if value in weights or weight not in weights or given.get("transA"):
        return None
    common = {"node": node.name, "op": node.op_type, "value": value, "weight": weight}
    name = node.input[2] if len(node.input) > 2 and node.input[2] else ""
    if node.op_type == "Gemm":
        if weights[weight].ndim != 2:
            return None
        inner = 1 if given.get("transB") else 0
        rows = weights[weight].shape[1 - inner]
        beta = float(given.get("beta", 1.0)) if name else 1.0
        return Linear(
            **common,
            groups=1,
            input_axis=inner,
            output_axis=1 - inner,
            window=None,
            rows_axis=-1,
            bias=_bias(node.name, name, weights, rows, beta),
            scale=float(given.get("alpha", 1.0)),
        )
    groups = int(given.get("group", 1))
    transposed = node.op_type == "ConvTranspose"
    shape = weights[weight].shape
    rows = shape[1] * groups if transposed else shape[0]
    return Linear(
        **common,
        groups=groups,
        input_axis=0 if transposed else 1,
        output_axis=1 if transposed else 0,
        window=Window.of(given, shape[2:], transposed=transposed),
        rows_axis=-1,
        bias=_bias(node.name, name, weights, rows, 1.0),
    )


def _matrix_product(
    node: onnx.NodeProto, weights: Mapping[str, NDArray[Any]], users: list[onnx.NodeProto]
) -> Linear | None:
    constant = [name in weights for name in node.input]
    if sum(constant) != 1:
        return None
    side = constant.index(True)  # X W, or W X
    weight = node.input[side]
    if weights[weight].ndim != 2:
        return None
    rows = weights[weight].shape[side]
    bias = None
    if side == 1 and len(users) == 1 and users[0].op_type == "Add":
        added = [name for name in users[0].input if name in weights]
        if added and math.prod(weights[added[0]].shape) == rows:
            bias = _bias(users[0].name, added[0], weights, rows, 1.0)
    return Linear(
        node=node.name,
        op="MatMul",
        value=node.input[1 - side],
        weight=weight,
        groups=1,
        input_axis=1 - side,
        output_axis=side,
        window=None,
        rows_axis=-1 if side == 1 else -2,
        bias=bias,
    )


def _bias(
    node: str, name: str, weights: Mapping[str, NDArray[Any]], rows: int, scale: float
) -> Bias | None:
    if name not in weights or not scale:
        return None
    shape = weights[name].shape
    if not shape or math.prod(shape) != rows or shape[-1] != rows:
        return None  # one constant for all outputs, or one for every row of a matrix
    return Bias(name=name, node=node, scale=scale)
