"""Shapes of all values of a graph, and what it computes from shapes alone, for given inputs.

A graph is walked for several shapes of its inputs at once. What is the same in all of them does
not depend on the batch or another symbolic axis; what equals an axis in all of them is that axis.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hwsearch.elastic.canonical.constants import RANDOM
from hwsearch.errors import EvaluationError
from hwsearch.models.execution import Session

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int | None, ...]
_LARGEST = 4096  # elements of an array that is computed here
_EVALUATIONS = "evaluations"
_CONSTANT = 64  # elements of a constant that is no list of integers, such as scales


class ShapeError(Exception):
    """A node refuses the shapes of its inputs."""


class KnownBranch(Exception):  # noqa: N818 - no error: tracing goes on without the condition
    """A condition is the same in all traces."""

    def __init__(self, node: ir.Node, *, condition: bool) -> None:
        super().__init__(node.name)
        self.node, self.condition = node, condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What is known of a graph's values for one set of shapes of its inputs.

    Attributes:
        shapes: Value -> its shape, None for an axis that depends on data; absent if even the
            number of axes is unknown.
        types: Value -> its element type, as in `onnx.TensorProto`.
        values: Value -> array, of constants and of what follows from shapes.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the shape of a value if all of it is known."""
        shape = None if value is None else self.shapes.get(str(value.name))
        known = () if shape is None else tuple(size for size in shape if size is not None)
        return known if shape is not None and len(known) == len(shape) else None


def trace(
    model: ir.Model,
    inputs: Sequence[Mapping[str, tuple[int, ...]]],
    before: Callable[[ir.Node, list[Trace]], Sequence[ir.Node]] | None = None,
) -> list[Trace]:
    """Walk a graph for several sets of shapes of its inputs.

    ``before`` is called before each node, with what is known by then; it may change the node's
    inputs, and returns nodes that it has inserted before it.

    Raises:
        ShapeError: A node refuses the shapes of its inputs.
        KnownBranch: An If has the same condition in all traces.
    """
    graph = model.graph
    traces = [Trace() for _ in inputs]
    for given, found in zip(inputs, traces, strict=True):
        for value in graph.inputs:
            _add(found, str(value.name), given[str(value.name)], value.dtype)
    for value in graph.initializers.values():
        add_constant(traces, value)
    opsets = [helper.make_opsetid(*each) for each in model.opset_imports.items()]
    # A graph is traced several times, and what takes long is to make sessions.
    evaluations: _Evaluations = model.meta.setdefault(_EVALUATIONS, _Evaluations(opsets))
    for node in list(graph):
        for each in (*(before(node, traces) if before is not None else ()), node):
            _visit(each, traces, opsets, evaluations)
    return traces


def add_constant(traces: Sequence[Trace], value: ir.Value) -> None:
    """Make an initialiser known."""
    tensor = value.const_value
    if tensor is None:
        return
    is_list = tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
    is_small = tensor.size <= (_LARGEST if is_list else _CONSTANT)
    for each in traces:
        _add(each, str(value.name), tuple(tensor.shape.numpy()), tensor.dtype)
        if is_small and tensor.dtype != ir.DataType.STRING:
            each.values[str(value.name)] = tensor.numpy()


def _add(found: Trace, name: str, shape: Shape, dtype: ir.DataType | None) -> None:
    found.shapes[name] = shape
    found.types[name] = int(dtype) if dtype is not None else TensorProto.FLOAT


def _visit(
    node: ir.Node,
    traces: list[Trace],
    opsets: list[onnx.OperatorSetIdProto],
    evaluations: "_Evaluations",
) -> None:
    if node.op_type == "If":
        _decide(node, traces)
        return
    versions = {each.domain or "": each.version for each in opsets}
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError as error:
        raise ShapeError(f"operator {node.op_type} of node {node.name!r} is unknown") from error
    proto = ir.serde.serialize_node(node)
    for found in traces:
        _infer(proto, schema, found, opsets)
        _evaluate(proto, found, evaluations)


def _decide(node: ir.Node, traces: list[Trace]) -> None:
    name = "" if node.inputs[0] is None else str(node.inputs[0].name)
    found = [each.values.get(name) for each in traces]
    conditions = {bool(each.item()) if each is not None else None for each in found}
    if len(conditions) == 1 and None not in conditions:
        raise KnownBranch(node, condition=bool(conditions.pop()))


def _infer(
    proto: onnx.NodeProto,
    schema: onnx.defs.OpSchema,
    found: Trace,
    opsets: list[onnx.OperatorSetIdProto],
) -> None:
    names = {name for name in proto.input if name}
    types = {n: _type(found.types[n], found.shapes.get(n)) for n in names if n in found.types}
    if len(types) < len(names):  # an input's type is unknown, and so is all that follows
        return
    data = {
        name: numpy_helper.from_array(np.require(found.values[name], requirements="C"), name)
        for name in names
        if name in found.values
    }
    try:
        outputs = shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=opsets
        )
    except Exception as error:  # several classes of onnx
        raise ShapeError(f"node {proto.name!r} ({proto.op_type}): {error}") from error
    for name, kind in outputs.items():
        if not kind.HasField("tensor_type"):
            continue
        found.types[name] = kind.tensor_type.elem_type
        if kind.tensor_type.HasField("shape"):
            found.shapes[name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in kind.tensor_type.shape.dim
            )
    if proto.op_type == "Reshape":  # whose inference believes any target
        counts = [_count(found.shapes.get(n)) for n in (proto.input[0], proto.output[0])]
        if None not in counts and counts[0] != counts[1]:
            raise ShapeError(
                f"node {proto.name!r} reshapes {found.shapes[proto.input[0]]} to "
                f"{found.shapes[proto.output[0]]}"
            )


def _count(shape: Shape | None) -> int | None:
    known = [size for size in shape or () if size is not None]
    return math.prod(known) if shape is not None and len(known) == len(shape) else None


class _Evaluations:
    """Nodes that are run on arrays; those that differ in names alone share a session."""

    def __init__(self, opsets: list[onnx.OperatorSetIdProto]) -> None:
        self._opsets = opsets
        self._sessions: dict[tuple[bytes, tuple[int, ...]], Session] = {}

    def __call__(self, proto: onnx.NodeProto, found: Trace) -> dict[str, Array]:
        inputs = {name: f"in{n}" for n, name in enumerate(filter(None, proto.input))}
        outputs = {name: f"out{n}" for n, name in enumerate(filter(None, proto.output))}
        node = onnx.NodeProto(
            op_type=proto.op_type,
            domain=proto.domain,
            attribute=proto.attribute,
            input=[inputs.get(name, "") for name in proto.input],
            output=[outputs.get(name, "") for name in proto.output],
        )
        types = [found.types[name] for name in inputs]
        key = node.SerializeToString(deterministic=True), tuple(types)
        if key not in self._sessions:
            graph = onnx.GraphProto(name="node", node=[node])
            for name, kind in zip(inputs.values(), types, strict=True):
                graph.input.append(helper.make_tensor_value_info(name, kind, None))
            model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=self._opsets)
            self._sessions[key] = Session(model, list(outputs.values()), optimised=False)
        results = self._sessions[key]({n: found.values[name] for name, n in inputs.items()})
        return {name: results[n] for name, n in outputs.items()}


def _evaluate(proto: onnx.NodeProto, found: Trace, evaluate: _Evaluations) -> None:
    """Compute a node's outputs if its inputs are known and they are small."""
    if proto.op_type in ("Shape", "Size"):
        shape = found.shapes.get(proto.input[0])
        if shape is None or None in shape:
            return
        sizes = np.array(shape, np.int64)
        attributes = {each.name: each.i for each in proto.attribute}
        part = sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))]
        found.values[proto.output[0]] = (
            part if proto.op_type == "Shape" else np.array(sizes.prod(), np.int64)
        )
        return
    if not all(name in found.values for name in proto.input if name) or not proto.input:
        return
    if proto.op_type in RANDOM or any(
        each.type == onnx.AttributeProto.GRAPH for each in proto.attribute
    ):
        return
    for name in filter(None, proto.output):
        shape = found.shapes.get(name)
        known = [size for size in shape or () if size is not None]
        if shape is None or len(known) < len(shape) or math.prod(known) > _LARGEST:
            return
    try:
        found.values.update(evaluate(proto, found))
    except EvaluationError:  # no kernel for its types: it stays a node
        return


def _type(element: int, shape: Shape | None) -> onnx.TypeProto:
    kind = onnx.TypeProto()
    kind.tensor_type.elem_type = element
    if shape is not None:
        kind.tensor_type.shape.SetInParent()  # of a scalar there is no axis to add
        for size in shape:
            dim = kind.tensor_type.shape.dim.add()
            if size is not None:
                dim.dim_value = size
    return kind
