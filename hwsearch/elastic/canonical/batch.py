"""A batch that an export has fixed, made symbolic.

An exporter that was given no dynamic axes writes the batch into the targets of reshapes, and omits
the expansion of what is the same for all samples, such as a class token. Both are put right where
a value's batch can be followed from the inputs on.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from hwsearch.elastic.canonical.constants import constant, unused_name
from hwsearch.elastic.canonical.shapes import ShapeError, Trace, add_constant, trace

BATCHES = (2, 3)  # times the batch of the file
_RECURRENT = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # inputs: states before the first step


def free_batch(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Make a graph right for any batch, in place; return the batch that the file has.

    ``shapes`` are those of the inputs in the file.

    Raises:
        ShapeError: A node's dependence on the batch cannot be put right.
    """
    batch = fixed_batch(shapes)
    batches = [dict(shapes)] + [
        {
            name: (n * batch, *shape[1:]) if shape[:1] == (batch,) else shape
            for name, shape in shapes.items()
        }
        for n in BATCHES
    ]

    reshapes = _Reshapes(model.graph)

    def before(node: ir.Node, traces: list[Trace]) -> Sequence[ir.Node]:
        if node.op_type == "Reshape":
            reshapes.free(node, traces)
        elif node.op_type == "Concat":
            return _expand_parts(model.graph, node, traces)
        elif node.op_type == "Resize":
            return _free_resize(model.graph, node, traces)
        elif node.op_type in _RECURRENT:
            _drop_zero_states(node)
        return ()

    found = trace(model, batches, before)
    for value in model.graph.outputs:
        if batch_axis(value, found) != 0:
            raise ShapeError(
                f"the first axis of output {value.name!r} is not the batch; end the model before, "
                "such as at boxes and scores before non-maximum suppression"
            )
    return batch


def fixed_batch(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the first axis that inputs have in common, or else 1; others have no batch.

    Raises:
        ShapeError: They have none in common.
    """
    first = {shape[0] for shape in shapes.values() if shape}
    if len(first) != 1 and 1 not in first:
        raise ShapeError(f"the first axes of its inputs are {sorted(first)}")
    return first.pop() if len(first) == 1 else 1


def batch_axis(value: ir.Value | None, traces: Sequence[Trace]) -> int | None:
    """Return the axis of a value that grows with the batch, the only one; None without one.

    Raises:
        ShapeError: Several axes grow, or one grows in another way.
    """
    shapes = [each.shape(value) for each in traces]
    first, *others = shapes
    if value is None or first is None or any(s is None or len(s) != len(first) for s in others):
        return None
    grown = [
        axis for axis in range(len(first)) if any(s and s[axis] != first[axis] for s in others)
    ]
    if not grown:
        return None
    factors = [s[grown[0]] / first[grown[0]] if first[grown[0]] else 0 for s in others if s]
    if len(grown) > 1 or factors != list(BATCHES):
        raise ShapeError(f"{value.name!r} has shape {first}, and grows to {others[0]}")
    return grown[0]


class _Reshapes:
    """Reshapes put right, in the order of the graph.

    The batch can share an axis with others: within windows it is the outermost of them, in the
    rows of a matrix of (length, batch) the innermost. ``inside`` has the number of positions of
    its axis that come before the batch, where that is not 1.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._inside: dict[ir.Value, int] = {}

    def inside(self, value: ir.Value | None, traces: Sequence[Trace]) -> int:
        """Return the number of positions of a value's axis that come before the batch."""
        node = None if value is None else value.producer()
        if value is None or node is None:
            return 1
        if value not in self._inside:
            axis, size = batch_axis(value, traces), 1
            shape = traces[0].shape(value)
            for source in node.inputs if node.op_type != "Reshape" else ():
                place, before = batch_axis(source, traces), traces[0].shape(source)
                if None not in (axis, place) and shape and before and shape[axis] == before[place]:  # type: ignore[index]
                    size = max(size, self.inside(source, traces))
            self._inside[value] = size
        return self._inside[value]

    def free(self, node: ir.Node, traces: Sequence[Trace]) -> None:
        """Let the target of a Reshape follow the batch."""
        source, target = node.inputs[0], node.inputs[1]
        axis = batch_axis(source, traces)
        name = "" if target is None else str(target.name)
        rows = [row.tolist() for each in traces if (row := each.values.get(name)) is not None]
        if axis is None or len(rows) < len(traces):
            return
        shapes = [shape for each in traces if (shape := each.shape(source)) is not None]
        written: list[int] = rows[0]
        before = resolved(written, shapes[0])
        if before is None:
            raise ShapeError(f"node {node.name!r} reshapes {shapes[0]} to {written}")
        outer = math.prod(shapes[0][:axis]) * self.inside(source, traces)
        place, inside = _place(shapes[0][axis + 1 :], before, outer, node)
        self._inside[node.outputs[0]] = inside
        wanted = [
            (*before[:place], n * before[place], *before[place + 1 :]) for n in (1, *BATCHES)
        ]
        if [resolved(*each) for each in zip(rows, shapes, strict=True)] == wanted:
            return
        copied = [*written]
        copied[place] = 0
        inferred = [s if mark != 0 else 0 for s, mark in zip(before, written, strict=True)]
        inferred[place] = -1
        for sizes in (copied, inferred):
            if [resolved(sizes, shape) for shape in shapes] == wanted:
                replace_sizes(self._graph, node, 1, sizes, traces)
                node.attributes.pop("allowzero", None)
                return
        raise ShapeError(f"node {node.name!r} reshapes {shapes[0]} to {written}")


def _place(
    rest: Sequence[int], sizes: Sequence[int], outer: int, node: ir.Node
) -> tuple[int, int]:
    """Return the axis that takes the batch, and the number of its positions before the batch.

    ``outer`` elements come before the batch in memory; ``rest`` are the axes after it.
    """
    place = next((p for p in range(len(sizes)) if math.prod(sizes[:p]) == outer), None)
    if place is None:
        raise ShapeError(f"node {node.name!r} mixes the batch with other axes")
    # Where what follows stays or becomes one axis, of features, the batch joins what is before.
    if place and (list(sizes[place:]) == list(rest) or place == len(sizes) - 1):
        return place - 1, sizes[place - 1]
    return place, 1


def resolved(sizes: Sequence[int], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape that a Reshape's target gives for an input's shape, None if it does not."""
    if any(size == 0 and position >= len(shape) for position, size in enumerate(sizes)):
        return None
    full = [shape[p] if size == 0 else size for p, size in enumerate(sizes)]
    total = math.prod(shape)
    if full.count(-1) == 1:
        rest = -math.prod(full)
        if rest <= 0 or total % rest:
            return None
        full[full.index(-1)] = total // rest
    return tuple(full) if math.prod(full) == total and min(full, default=0) >= 0 else None


def replace_sizes(
    graph: ir.Graph, node: ir.Node, position: int, sizes: Sequence[int], traces: Sequence[Trace]
) -> None:
    """Give a node a constant list of sizes of its own."""
    old = node.inputs[position]
    stem = f"{old.name}" if old is not None else f"{node.name}.sizes"
    value = constant(unused_name(graph, stem), np.array(sizes, np.int64))
    graph.register_initializer(value)
    add_constant(traces, value)
    node.replace_input_with(position, value)


def _expand_parts(graph: ir.Graph, node: ir.Node, traces: list[Trace]) -> list[ir.Node]:
    """Expand what a Concat joins with batches and has no batch itself."""
    axes = [batch_axis(value, traces) for value in node.inputs]
    carried = {axis for axis in axes if axis is not None}
    if len(carried) != 1 or None not in axes:
        return []
    axis = carried.pop()
    leader = node.inputs[axes.index(axis)]
    assert leader is not None
    rank = len(traces[0].shapes[str(leader.name)])
    joined = node.attributes.get_int("axis", 0) % rank
    added: list[ir.Node] = []
    for position, value in enumerate(node.inputs):
        shape = traces[0].shape(value)
        if axes[position] is not None or value is None or joined == axis:
            continue
        if shape is None or shape[axis] != 1:
            raise ShapeError(
                f"node {node.name!r} joins {value.name!r} of shape {shape} to batches"
            )
        sizes = axis_sizes(graph, node, leader, [axis], traces, before=axis, after=rank - axis - 1)
        expand = ir.node("Expand", [value, sizes[-1].outputs[0]])
        expand.outputs[0].name = unused_name(graph, f"{value.name}.batch")
        added += [*sizes, expand]
        node.replace_input_with(position, expand.outputs[0])
        graph.insert_before(node, [*sizes, expand])
    return added


def axis_sizes(
    graph: ir.Graph,
    node: ir.Node,
    leader: ir.Value,
    axes: Sequence[int],
    traces: Sequence[Trace],
    *,
    before: int | Sequence[int] = 0,
    after: int | Sequence[int] = 0,
) -> list[ir.Node]:
    """Return nodes that list sizes of a value's axes between constant ones, in order.

    ``before`` and ``after`` are constants, or numbers of ones. The last node's output is the list.
    """
    stem = f"{node.name}.{leader.name}"

    def listed(suffix: str, sizes: Sequence[int]) -> ir.Value:
        value = constant(unused_name(graph, f"{stem}.{suffix}"), np.array(sizes, np.int64))
        graph.register_initializer(value)
        add_constant(traces, value)
        return value

    shape = ir.node("Shape", [leader])
    shape.outputs[0].name = unused_name(graph, f"{stem}.shape")
    gather = ir.node("Gather", [shape.outputs[0], listed("axes", axes)])
    gather.outputs[0].name = unused_name(graph, f"{stem}.sizes")
    ones = [[1] * each if isinstance(each, int) else list(each) for each in (before, after)]
    parts = [listed("before", ones[0])] if ones[0] else []
    parts.append(gather.outputs[0])
    parts += [listed("after", ones[1])] if ones[1] else []
    if len(parts) == 1:
        return [shape, gather]
    concat = ir.node("Concat", parts, attributes={"axis": 0})
    concat.outputs[0].name = unused_name(graph, f"{stem}.target")
    return [shape, gather, concat]


def _free_resize(graph: ir.Graph, node: ir.Node, traces: list[Trace]) -> list[ir.Node]:
    """Read the batch and the channels of a Resize's target from its input."""
    target = node.inputs[3] if len(node.inputs) > 3 else None
    source = node.inputs[0]
    is_listed = target is not None and target.is_initializer() and "axes" not in node.attributes
    if source is None or target is None or not is_listed or batch_axis(source, traces) != 0:
        return []
    sizes = [int(size) for size in traces[0].values[str(target.name)]]
    shape = traces[0].shape(source)
    if shape is None or tuple(sizes[:2]) != shape[:2]:
        raise ShapeError(f"node {node.name!r} resizes the batch")
    nodes = axis_sizes(graph, node, source, [0, 1], traces, after=sizes[2:])
    node.replace_input_with(3, nodes[-1].outputs[0])
    graph.insert_before(node, nodes)
    return nodes


def _drop_zero_states(node: ir.Node) -> None:
    """Drop initial states of zeros for the file's batch: zeros are the default."""
    for position in _RECURRENT[node.op_type]:
        state = node.inputs[position] if position < len(node.inputs) else None
        tensor = None if state is None else state.const_value
        if tensor is not None and not np.any(tensor.numpy()):
            node.replace_input_with(position, None)
