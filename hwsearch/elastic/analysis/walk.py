"""Execution of a graph part by part, with the values that later parts need."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.models.execution import Session

Values = dict[str, NDArray[Any]]


class Walk:
    """A graph that has been run up to one of its nodes, on pieces of samples.

    Weights may be changed between parts; a part reads them when it is run.

    Attributes:
        nodes: In topological order.
        weights: By initialiser.
        values: Of each piece, the values that nodes behind the position read.
        position: Number of nodes that were run.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        weights: Mapping[str, NDArray[Any]],
        pieces: Iterable[Mapping[str, NDArray[Any]]],
    ) -> None:
        self.nodes = list(proto.graph.node)
        self.weights = dict(weights)
        self.values: list[Values] = [dict(piece) for piece in pieces]
        self.position = 0
        self._proto = proto
        self._index = {node.name: position for position, node in enumerate(self.nodes)}
        self._last: dict[str, int] = {}
        for position, node in enumerate(self.nodes):
            for name in _read_by(node):
                self._last[name] = position

    def has(self, node: str) -> bool:
        """Return whether there is a node of a name."""
        return node in self._index

    def index(self, node: str) -> int:
        """Return the position of a node."""
        return self._index[node]

    def forward(self, position: int) -> None:
        """Run the nodes before a position."""
        if position <= self.position:
            return
        part = self.nodes[self.position : position]
        produced = {name for node in part for name in node.output if name}
        read = {name for node in part for name in _read_by(node)}
        wanted = [n for n in produced if self._last.get(n, -1) >= position]
        given = [n for n in read if n not in produced and n not in self.weights]
        if wanted:
            weights = {name: self.weights[name] for name in read if name in self.weights}
            model = _part(self._proto, part, {n: self.values[0][n] for n in given})
            session = Session(model, wanted, weights)
            for values in self.values:
                values.update(session({name: values[name] for name in given}))
        self.position = position
        for values in self.values:
            for name in [n for n in values if self._last.get(n, -1) < position]:
                del values[name]


def peak_bytes(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the most bytes that values take at once while a graph is run, for one sample."""
    last: dict[str, int] = {}
    for position, node in enumerate(proto.graph.node):
        for name in _read_by(node):
            last[name] = position
    behind: dict[int, list[str]] = {}
    for name, position in last.items():
        behind.setdefault(position, []).append(name)
    live = {value.name for value in proto.graph.input}
    sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}
    now = peak = sum(sizes.get(name, 0) for name in live)
    for position, node in enumerate(proto.graph.node):
        fresh = {name for name in node.output if name in last} - live
        live |= fresh
        now += sum(sizes.get(name, 0) for name in fresh)
        peak = max(peak, now)
        gone = live.intersection(behind.get(position, ()))
        live -= gone
        now -= sum(sizes.get(name, 0) for name in gone)
    return peak


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the values that a node reads, those that its subgraphs capture included."""
    read = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                read |= _read_by(inner)
    return read


def _part(
    proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], given: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="part", node=nodes)
    for name, array in given.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        shape = [None] * array.ndim
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    part = onnx.ModelProto(ir_version=proto.ir_version, graph=graph)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    return part
