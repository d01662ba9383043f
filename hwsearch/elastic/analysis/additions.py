"""Residual additions that layers feed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Addition:
    """An ``Add`` of a layer's output and a shortcut.

    Attributes:
        node: The addition.
        shortcut: Which of its inputs is the shortcut.
        path: Nodes between the layer and the addition; each can be inverted.
    """

    node: onnx.NodeProto
    shortcut: int
    path: tuple[onnx.NodeProto, ...]

    def as_output(
        self,
        shortcut: NDArray[Any],
        shape: Sequence[int],
        weights: Mapping[str, NDArray[Any]],
    ) -> NDArray[Any] | None:
        """Return what the layer would have to put out for the shortcut to be added once more.

        Args:
            shortcut: Its values.
            shape: Of the layer's output.
            weights: Of the graph.

        Returns:
            An array of that shape; None if the path cannot be inverted.
        """
        before: list[tuple[int, ...] | None] = []  # shape before each node of the path
        current: tuple[int, ...] | None = tuple(shape)
        for node in self.path:
            before.append(current)
            if node.op_type in _RESHAPING:
                current = None
            elif node.op_type == "Transpose" and current is not None:
                current = tuple(current[axis] for axis in _permutation(node, len(current)))
        found = shortcut
        for node, earlier in zip(reversed(self.path), reversed(before), strict=True):
            if node.op_type in _RESHAPING:
                if earlier is None or np.prod(earlier) != found.size:
                    return None
                found = found.reshape(earlier)
            elif node.op_type == "Transpose":
                found = found.transpose(np.argsort(_permutation(node, found.ndim)))
            elif node.op_type == "Mul":
                factor = next(weights[name] for name in node.input if name in weights)
                found = np.divide(found, factor, where=factor != 0, out=np.zeros_like(found))
        return found if found.shape == tuple(shape) else None


def additions(
    proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], layers: Sequence[str]
) -> dict[str, Addition]:
    """Return layer -> the residual addition that its output alone, or with a constant, feeds."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in proto.graph.output}
    nodes = {node.name: node for node in proto.graph.node}
    found = {}
    for layer in layers:
        value = nodes[layer].output[0]
        path: list[onnx.NodeProto] = []
        while value not in outputs and len(users.get(value, ())) == 1:
            (node,) = users[value]
            constants = sum(name in weights for name in node.input)
            if node.op_type == "Add" and not constants and node.input[0] != node.input[1]:
                side = list(node.input).index(value)
                found[layer] = Addition(node=node, shortcut=1 - side, path=tuple(path))
                break
            linear = node.op_type in ("Add", "Mul") and constants == 1
            if not (linear or node.op_type in ("Transpose", "Identity", *_RESHAPING)):
                break
            path.append(node)
            value = node.output[0]
    return found


def _permutation(node: onnx.NodeProto, rank: int) -> list[int]:
    for attribute in node.attribute:
        if attribute.name == "perm":
            return list(attribute.ints)
    return list(reversed(range(rank)))
