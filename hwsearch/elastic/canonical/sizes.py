"""Folding of what a graph computes from static axes, and of the targets of Reshape and Expand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.elastic.canonical.batch import axis_sizes, replace_sizes, resolved
from hwsearch.elastic.canonical.constants import replace_by_constant
from hwsearch.elastic.canonical.shapes import Trace


def fold_sizes(graph: ir.Graph, traces: Sequence[Trace]) -> bool:
    """Fold what is the same in all traces; return whether anything was.

    A computed target of a Reshape becomes a constant where each of its sizes is constant, a copy
    (0) of the input's or the only one that is left to infer (-1). That of an Expand is read from
    the graph's inputs: a constant except for their symbolic axes.
    """
    changed = False
    for node in list(graph):
        if node.op_type == "Reshape":
            changed |= _fold_reshape(graph, node, traces)
        elif node.op_type == "Expand":
            changed |= _fold_expand(graph, node, traces)
        for value in node.outputs:
            array = _common(value, traces)
            if array is not None and value.uses() and not value.is_graph_output():
                replace_by_constant(graph, value, array)
                changed = True
    return changed


def _common(value: ir.Value | None, traces: Sequence[Trace]) -> NDArray[Any] | None:
    """Return the array of a value that is the same in all traces."""
    name = "" if value is None else str(value.name)
    arrays = [each.values.get(name) for each in traces]
    first = arrays[0]
    if first is None or any(a is None or not np.array_equal(a, first) for a in arrays[1:]):
        return None
    return first


def _fold_reshape(graph: ir.Graph, node: ir.Node, traces: Sequence[Trace]) -> bool:
    rows = _rows(node, 1, traces)
    copies = not node.attributes.get_int("allowzero", 0)
    if rows is None or not (copies or rows.all()):
        return False
    shapes = [shape for each in traces if (shape := each.shape(node.inputs[0])) is not None]
    if len(shapes) < len(traces):
        return False
    sizes = []
    for position in range(rows.shape[1]):
        column = rows[:, position]
        if (column == column[0]).all():
            sizes.append(int(column[0]))
        elif all(
            position < len(s) and s[position] == n for s, n in zip(shapes, column, strict=True)
        ):
            sizes.append(0)
        else:
            sizes.append(-1)
    if sizes.count(-1) > 1:
        return False
    wanted = [resolved(row.tolist(), shape) for row, shape in zip(rows, shapes, strict=True)]
    if None in wanted or [resolved(sizes, shape) for shape in shapes] != wanted:
        return False
    replace_sizes(graph, node, 1, sizes, traces)
    node.attributes.pop("allowzero", None)
    return True


def _fold_expand(graph: ir.Graph, node: ir.Node, traces: Sequence[Trace]) -> bool:
    rows = _rows(node, 1, traces)
    shapes = [each.shape(node.inputs[0]) for each in traces]
    if rows is None or None in shapes or _is_folded(node.inputs[1]):
        return False
    sizes = []
    for position in range(rows.shape[1]):
        column = rows[:, position].tolist()
        from_end = rows.shape[1] - position
        own = [s[-from_end] if s and len(s) >= from_end else 1 for s in shapes]
        sizes.append([1] * len(column) if column == own else column)
    varying = [place for place, column in enumerate(sizes) if len(set(column)) > 1]
    if not varying:
        replace_sizes(graph, node, 1, [column[0] for column in sizes], traces)
        return True
    found = _input_axis(graph, sizes[varying[0]], traces)
    if len(varying) > 1 or found is None:
        return False
    leader, axis = found
    fixed = [column[0] for column in sizes]
    nodes = axis_sizes(
        graph, node, leader, [axis], traces,
        before=fixed[: varying[0]], after=fixed[varying[0] + 1 :],
    )  # fmt: skip
    graph.insert_before(node, nodes)
    node.replace_input_with(1, nodes[-1].outputs[0])
    return True


def _is_folded(target: ir.Value | None) -> bool:
    """Return whether a list of sizes consists of constants and sizes of the graph's inputs."""
    node = None if target is None else target.producer()
    if target is None or node is None:
        return target is not None and target.is_initializer()
    if node.op_type == "Concat":
        return all(map(_is_folded, node.inputs))
    shape = node.inputs[0].producer() if node.inputs[0] is not None else None
    is_size = node.op_type == "Gather" and shape is not None and shape.op_type == "Shape"
    source = shape.inputs[0] if shape is not None and is_size else None
    return source is not None and source.is_graph_input()


def _input_axis(
    graph: ir.Graph, sizes: list[int], traces: Sequence[Trace]
) -> tuple[ir.Value, int] | None:
    """Return an input of the graph and its axis that has these sizes in the traces."""
    for value in graph.inputs:
        shapes = [each.shape(value) or () for each in traces]
        for axis in range(len(shapes[0])):
            if [shape[axis] for shape in shapes] == sizes:
                return value, axis
    return None


def _rows(node: ir.Node, position: int, traces: Sequence[Trace]) -> NDArray[Any] | None:
    """Return the computed list of sizes that a node reads, one row for each trace."""
    value = node.inputs[position]
    if value is None or value.is_initializer():
        return None
    rows = [each.values.get(str(value.name)) for each in traces]
    known = [row for row in rows if row is not None and row.ndim == 1]
    if len(known) < len(rows) or len({row.shape for row in known}) > 1:
        return None
    return np.stack(known)
