"""Sequences of tensors whose length is known: their tensors take their place.

PyTorch's newer exporter writes `torch.split` and `torch.chunk` as sequences.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from hwsearch.elastic.canonical.constants import constant, unused_name
from hwsearch.elastic.canonical.shapes import Trace, add_constant

Items = list[ir.Value]


def has_sequences(graph: ir.Graph) -> bool:
    """Return whether a graph makes sequences of tensors."""
    return any("Sequence" in node.op_type for node in graph)


class SequenceReplacement:
    """Replaces what makes and reads sequences by Split and Concat, while a graph is traced.

    It is what `hwsearch.elastic.canonical.shapes.trace` calls before each node. Sequences of
    unknown length stay, and so do those that subgraphs read.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._known: dict[ir.Value, Items] = {}
        self._results: dict[ir.Node, ir.Value] = {}

    def __call__(self, node: ir.Node, traces: list[Trace]) -> Sequence[ir.Node]:
        """Let the readers of a node read what takes its place; return inserted nodes."""
        graph, (found,) = self._model.graph, traces
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "SplitToSequence" and node.outputs[0] not in self._known:
            parts, nodes = _parts(graph, node, found)
            if parts:
                self._known[node.outputs[0]] = parts
            return nodes
        items = _changed(node, self._known, found)
        if items is not None:
            self._known[node.outputs[0]] = items
        elif source in self._known and node not in self._results:
            result, nodes = _read(graph, node, self._known[source], found)
            if result is not None:
                self._results[node] = result
                for use in list(node.outputs[0].uses()):
                    use.node.replace_input_with(use.idx, result)
            return nodes
        return ()

    def finish(self) -> None:
        """Remove the nodes that were replaced."""
        for node, result in self._results.items():
            if node.outputs[0].is_graph_output():
                identity = ir.node("Identity", [result], name=node.name)
                ir.convenience.replace_nodes_and_values(
                    self._model.graph, node, [node], [identity], node.outputs, identity.outputs
                )
        common.RemoveUnusedNodesPass()(self._model)


def _changed(node: ir.Node, known: Mapping[ir.Value, Items], found: Trace) -> Items | None:
    """Return the tensors of the sequence that a node makes of tensors or a sequence, or None."""
    given = [value for value in node.inputs if value is not None]
    if node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return given
    if node.op_type not in ("SequenceInsert", "SequenceErase") or given[0] not in known:
        return None
    items, is_erased = list(known[given[0]]), node.op_type == "SequenceErase"
    place = _integers(given[-1], found) if len(given) > 2 - is_erased else [len(items)]
    if not place or not -len(items) <= place[0] <= len(items) - is_erased:
        return None
    if is_erased:
        items.pop(place[0])
    else:
        items.insert(place[0], given[1])
    return items


def _parts(graph: ir.Graph, node: ir.Node, found: Trace) -> tuple[Items, list[ir.Node]]:
    """Return the outputs of a Split in place of a SplitToSequence, and new nodes."""
    source, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = _integers(given, found) if given is not None else [1]
    if source is None or not sizes:
        return [], []
    if given is None or found.shape(given) == ():
        dims = found.shapes.get(str(source.name), ())
        whole = dims[axis] if -len(dims) <= axis < len(dims) else None
        if not whole or sizes[0] < 1:
            return [], []
        ends = [*range(sizes[0], whole, sizes[0]), whole]
        sizes = np.diff([0, *ends]).tolist()
    lengths = _initializer(graph, f"{node.name}.sizes", sizes, found)
    split = ir.node(
        "Split", [source, lengths], {"axis": axis}, num_outputs=len(sizes), name=node.name
    )
    nodes, items = [split], list(split.outputs)
    if given is None and not node.attributes.get_int("keepdims", 1):
        axes = _initializer(graph, f"{node.name}.axes", [axis], found)
        nodes += [ir.node("Squeeze", [item, axes]) for item in items]
        items = [each.outputs[0] for each in nodes[1:]]
    _insert(graph, node, nodes)
    return items, nodes


def _read(
    graph: ir.Graph, node: ir.Node, items: Items, found: Trace
) -> tuple[ir.Value | None, list[ir.Node]]:
    """Return the tensor that a node finds in a sequence of these tensors, and new nodes."""
    if node.op_type == "SequenceLength":
        return _initializer(graph, f"{node.name}.length", len(items), found), []
    if node.op_type == "SequenceAt":
        place = _integers(node.inputs[1], found)
        is_inside = bool(place) and -len(items) <= place[0] < len(items)
        return items[place[0]] if is_inside else None, []
    if node.op_type != "ConcatFromSequence" or not items:
        return None, []
    axis, nodes = node.attributes.get_int("axis", 0), []
    if node.attributes.get_int("new_axis", 0):
        axes = _initializer(graph, f"{node.name}.axes", [axis], found)
        nodes = [ir.node("Unsqueeze", [item, axes]) for item in items]
        items = [each.outputs[0] for each in nodes]
    nodes.append(ir.node("Concat", items, {"axis": axis}, name=node.name))
    _insert(graph, node, nodes)
    return nodes[-1].outputs[0], nodes


def _insert(graph: ir.Graph, node: ir.Node, nodes: Sequence[ir.Node]) -> None:
    """Put nodes before another one, and name what they make."""
    graph.insert_before(node, nodes)
    for number, value in enumerate(itertools.chain.from_iterable(n.outputs for n in nodes)):
        value.name = unused_name(graph, f"{node.outputs[0].name}.{number}")


def _initializer(graph: ir.Graph, name: str, numbers: Any, found: Trace) -> ir.Value:
    value = constant(unused_name(graph, name), np.array(numbers, np.int64))
    graph.register_initializer(value)
    add_constant([found], value)
    return value


def _integers(value: ir.Value | None, found: Trace) -> list[int]:
    """Return integers that are known before the model runs, or nothing."""
    array = None if value is None else found.values.get(str(value.name))
    return [] if array is None else [int(each) for each in array.reshape(-1)]
