"""Scatters of consecutive rows as concatenations, whose channels can be followed.

PyTorch's newer exporter writes an operation on a slice in place, such as ``x[:, :8] += y``, as a
ScatterND into the slice's range, and one into all samples around it.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from hwsearch.elastic.canonical.constants import constant, unused_name
from hwsearch.elastic.canonical.shapes import Trace


def simplify_scatters(graph: ir.Graph, traces: Sequence[Trace]) -> None:
    """Replace each ScatterND into all rows, or a constant range of them, in place.

    The result is the updates, between what is left of the data before and behind them.
    """
    for node in list(graph):
        if (
            node.op_type != "ScatterND"
            or node.attributes.get_string("reduction", "none") != "none"
        ):
            continue
        spans = {_span(node, each) for each in traces}
        is_whole = all(span is not None and span[:2] == (0, span[2]) for span in spans)
        if None in spans or (len(spans) > 1 and not is_whole):
            continue
        parts: list[ir.Value | None] = [node.inputs[2]]
        if not is_whole:
            first, end, number = next(span for span in spans if span is not None)
            parts = [*_rows(graph, node, 0, first), *parts, *_rows(graph, node, end, number)]
        joined = ir.node("Concat", parts, {"axis": 0}, name=node.name)
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], [joined], node.outputs, joined.outputs
        )


def _span(node: ir.Node, found: Trace) -> tuple[int, int, int] | None:
    """Return the range of rows that the indices are, and the number of all rows."""
    data, indices = node.inputs[0], node.inputs[1]
    shape = found.shape(data)
    tensor = None if indices is None else ir.convenience.get_const_tensor(indices)
    array = None if indices is None else found.values.get(str(indices.name))
    array = tensor.numpy() if tensor is not None else array
    if not shape or array is None or array.ndim != 2 or array.shape[1] != 1 or not array.size:
        return None
    first, count = int(array[0, 0]), len(array)
    is_range = first >= 0 and np.array_equal(array[:, 0], np.arange(first, first + count))
    return (first, first + count, shape[0]) if is_range else None


def _rows(graph: ir.Graph, node: ir.Node, start: int, end: int) -> list[ir.Value]:
    """Return the rows of a node's first input in a range, if there are any."""
    if start >= end:
        return []
    bounds = []
    for what, number in (("start", start), ("end", end), ("axis", 0)):
        name = unused_name(graph, f"{node.name}.{what}")
        bounds.append(constant(name, np.array([number], np.int64)))
        graph.register_initializer(bounds[-1])
    rows = ir.node("Slice", [node.inputs[0], *bounds], name=f"{node.name}.{start}")
    rows.outputs[0].name = unused_name(graph, f"{node.outputs[0].name}.{start}")
    graph.insert_before(node, [rows])
    return list(rows.outputs)
