"""Small simplifications: functions inlined, nodes dropped that do nothing, unique names."""

from collections import Counter

import onnx_ir as ir
from onnx import shape_inference, version_converter
from onnx_ir.passes import common

from hwsearch.errors import InputError
from hwsearch.models.onnx_file import without_weights

OPSET = 13  # from it on the axes of Squeeze, Unsqueeze, Split and ReduceSum are inputs


def inline_functions(model: ir.Model) -> None:
    """Replace calls of the model's own functions by their nodes."""
    if not model.functions:
        return
    try:
        common.InlinePass()(model)
    except Exception as error:  # onnx-ir wraps the errors of passes
        raise InputError(
            f"functions of the model cannot be inlined: {error}; export it with one opset"
        ) from error
    model.functions.clear()


def upgraded(model: ir.Model, opset: int = OPSET) -> ir.Model | None:
    """Return a model of a later opset; None where the converter of ``onnx`` does not manage.

    Weights are left out of the conversion: copying them takes long.
    """
    proto = ir.to_proto(model)
    try:
        stripped = shape_inference.infer_shapes(without_weights(proto))
        converted = version_converter.convert_version(stripped, opset)
    except Exception:  # noqa: BLE001 - it raises several classes, and none says what to do
        return None
    kept = {tensor.name for tensor in converted.graph.initializer}
    given = {value.name for value in proto.graph.input}
    inputs = [value for value in converted.graph.input if value.name in given]
    del converted.graph.input[:]
    converted.graph.input.extend(inputs)
    del converted.graph.value_info[:]
    rest = [tensor for tensor in proto.graph.initializer if tensor.name not in kept]
    converted.graph.initializer.extend(rest)
    result = ir.from_proto(converted)
    for name, value in result.graph.initializers.items():
        if name in model.graph.initializers:
            before = model.graph.initializers[name]
            value.const_value = before.const_value
            value.meta.update(before.meta)
    return result


def drop_idle_nodes(model: ir.Model) -> None:
    """Drop Dropout and Identity nodes, and nodes whose outputs nothing reads."""
    for node in list(model.graph):
        if node.op_type == "Dropout" and not any(output.uses() for output in node.outputs[1:]):
            make_identity(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Identity":
            _drop_identity(model.graph, node)
    common.RemoveUnusedNodesPass()(model)
    common.OutputFixPass()(model)


def _drop_identity(graph: ir.Graph, node: ir.Node) -> None:
    source, target = node.inputs[0], node.outputs[0]
    if source is None:
        return
    if target.is_graph_output():
        if source.producer() is None or source.is_graph_output():
            return  # needed for the output's name
        name, shape, kind = target.name, target.shape, target.type
        ir.convenience.replace_all_uses_with(target, source, replace_graph_outputs=True)
        target.name = f"{name}.identity"  # it is dropped with its node
        source.name, source.shape, source.type = name, shape, kind
    else:
        ir.convenience.replace_all_uses_with(target, source)
    graph.remove(node, safe=True)


def make_identity(graph: ir.Graph, node: ir.Node) -> None:
    """Replace a node that returns its first input."""
    identity = ir.node("Identity", [node.inputs[0]], name=node.name)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [identity], node.outputs[:1], identity.outputs
    )


def name_nodes(graph: ir.Graph) -> None:
    """Give every node a name of its own; names that are unique stay."""
    counts = Counter(node.name for node in graph)
    taken = {name for name, count in counts.items() if name and count == 1}
    for node in graph:
        if node.name in taken and counts[node.name] == 1:
            continue
        stem = node.name or f"{node.op_type}_{node.outputs[0].name}"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}.{number}"
        taken.add(name)
        node.name = name
