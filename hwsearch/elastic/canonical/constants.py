"""Folding of constants into initialisers that still say where they come from."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from hwsearch.elastic.graph import Origin
from hwsearch.errors import EvaluationError
from hwsearch.models.execution import Session

Array: TypeAlias = NDArray[Any]
RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike")
)  # fmt: skip
# Operators that keep all elements of their first input, in their order.
_RESHAPES = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
_LARGEST_BYTES = 1 << 26  # a constant above is computed anew, unless its inputs are as large
_ORIGIN, _RESHAPED = "origin", "reshaped"


def origin_of(value: ir.Value) -> Origin | None:
    """Return where an initialiser comes from."""
    found: Origin | None = value.meta.get(_ORIGIN)
    return found


def constant(name: str, array: Array, origin: Origin | None = None) -> ir.Value:
    """Return a value with an array, to be registered as an initialiser."""
    array = np.asarray(array)
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    if origin is not None:
        value.meta[_ORIGIN] = origin
    return value


def unused_name(graph: ir.Graph, name: str) -> str:
    """Return the name, or else the first of NAME.2, NAME.3 ... that no value has."""
    taken = set(graph.initializers) | {value.name for value in graph.inputs}
    taken.update(output.name for node in graph for output in node.outputs)
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}.{number}"
    return candidate


def lift_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initialisers, and initialisers that are inputs too into constants.

    Every initialiser gets its origin and an array of its own object, so that renaming it does not
    touch the model that was read.
    """
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
            value.shape = ir.Shape(tensor.shape.numpy())
            value.type = ir.TensorType(tensor.dtype)
        value.meta[_ORIGIN] = Origin(name=name)


def fold_constants(model: ir.Model) -> bool:
    """Replace what is computed from constants alone by initialisers; return whether any was."""
    graph = model.graph
    nodes = _constant_nodes(graph)
    # In a graph of nothing but constants nodes need no further ones: fold to the last ones.
    chosen = set(nodes)
    wanted = [
        output
        for node in nodes
        for output in node.outputs
        if not output.is_graph_output() and any(use.node not in chosen for use in output.uses())
    ]
    arrays = _computed(model, nodes, wanted)
    for node in nodes:
        _trace_origin(node, arrays)
    for value in wanted:
        array = arrays.get(str(value.name))
        if array is not None:
            replace_by_constant(graph, value, array)
    common.RemoveUnusedNodesPass()(model)
    return bool(arrays)


def replace_by_constant(graph: ir.Graph, value: ir.Value, array: Array) -> None:
    """Let the users of a node's output, which is no output of the graph, read an initialiser.

    The initialiser has the output's name.
    """
    name = str(value.name)
    value.name = f"{name}.folded"  # it is dropped with its node
    folded = constant(name, array, origin_of(value))
    graph.register_initializer(folded)
    ir.convenience.replace_all_uses_with(value, folded)


def unshare(graph: ir.Graph) -> None:
    """Give every use of an initialiser an initialiser of its own; they share their memory."""
    taken = set(graph.initializers) | {value.name for value in graph.inputs}
    taken.update(output.name for node in graph for output in node.outputs)
    for name, value in list(graph.initializers.items()):
        if value.const_value is None:
            continue
        number = 1
        for use in list(value.uses())[1:]:
            while (copy_name := f"{name}.{number}") in taken:
                number += 1
            taken.add(copy_name)
            copied = constant(copy_name, value.const_value.numpy(), origin_of(value))
            graph.register_initializer(copied)
            use.node.replace_input_with(use.idx, copied)


def _constant_nodes(graph: ir.Graph) -> list[ir.Node]:
    known = set(graph.initializers.values())
    found = []
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        has_graph = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        is_fixed = node.op_type not in RANDOM and "Sequence" not in node.op_type
        if inputs and known.issuperset(inputs) and not has_graph and is_fixed:
            known.update(node.outputs)
            found.append(node)
    return found


def _computed(
    model: ir.Model, nodes: list[ir.Node], wanted: Iterable[ir.Value]
) -> dict[str, Array]:
    """Return the arrays of wanted values, without those that cannot or should not be folded."""
    names = [str(value.name) for value in wanted]
    if not names:
        return {}
    try:
        found = _run(model, nodes, names, {})
    except EvaluationError:  # some operator has no kernel for its types: fold what can be
        found = {}
        for node in nodes:
            outputs = [str(output.name) for output in node.outputs if output.name]
            try:
                found |= _run(model, [node], outputs, found)
            except EvaluationError:
                continue
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    limit = max(size, _LARGEST_BYTES)
    return {name: found[name] for name in names if name in found and found[name].nbytes <= limit}


def _run(
    model: ir.Model, nodes: list[ir.Node], outputs: list[str], computed: dict[str, Array]
) -> dict[str, Array]:
    graph = onnx.GraphProto(name="constants", node=[ir.to_proto(node) for node in nodes])
    read = {name for node in graph.node for name in node.input}
    made = {name for node in graph.node for name in node.output}
    weights = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if name in read and value.const_value is not None
    }
    weights |= {name: computed[name] for name in read - made if name in computed}
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4), graph=graph)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    return Session(proto, outputs, weights, optimised=False)({})


def _trace_origin(node: ir.Node, arrays: Mapping[str, Array]) -> None:
    source, target = node.inputs[0], node.outputs[0]
    origin = None if source is None else origin_of(source)
    if source is None or origin is None:
        return
    result = arrays.get(str(target.name))
    known = source.const_value
    is_same = known is not None and result is not None and known.shape.numpy() == result.shape
    if node.op_type in _RESHAPES or (node.op_type == "Expand" and is_same):
        target.meta[_ORIGIN] = origin
        target.meta[_RESHAPED] = node.op_type not in ("Cast", "Expand", "Identity")
    elif node.op_type == "Transpose" and not source.meta.get(_RESHAPED):
        axes = tuple(node.attributes.get_ints("perm", ()))
        if not axes and source.shape is not None:
            axes = tuple(reversed(range(source.shape.rank())))
        before = origin.permutation or tuple(range(len(axes)))
        if axes:
            target.meta[_ORIGIN] = replace(
                origin, permutation=tuple(before[axis] for axis in axes)
            )
