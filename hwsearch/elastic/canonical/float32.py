"""Conversion of models in half precision to float32."""

import numpy as np
import onnx_ir as ir

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def was_half(model: ir.Model) -> bool:
    """Return whether a model had weights, inputs or outputs in half precision."""
    return bool(model.meta.get("half"))


def to_float32(model: ir.Model) -> None:
    """Convert weights and computations in half precision, in place.

    Inputs and outputs keep their types: they are cast.
    """
    graph = model.graph
    halves = [v for v in graph.initializers.values() if v.dtype in _HALF]
    ends = [value for value in (*graph.inputs, *graph.outputs) if value.dtype in _HALF]
    if not halves and not ends:
        return
    model.meta["half"] = True
    for value in halves:
        assert value.const_value is not None
        array = value.const_value.numpy().astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        value.dtype = ir.DataType.FLOAT
    for node in ir.traversal.RecursiveGraphIterator(graph):
        _convert_attributes(node)
        for output in node.outputs:
            if not output.is_graph_output():
                output.type = None
    for value in ends:
        if value.is_graph_input():
            _cast_input(graph, value)
    for position, value in enumerate(graph.outputs):
        if value.dtype in _HALF:
            _cast_output(graph, position)


def _convert_attributes(node: ir.Node) -> None:
    for name in ("to", "dtype", "output_dtype", "stash_type", "softmax_precision"):
        attribute = node.attributes.get(name)
        is_type = attribute is not None and attribute.type == ir.AttributeType.INT
        if attribute is not None and is_type and attribute.as_int() in _HALF:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
    value = node.attributes.get("value")
    if value is not None and value.type == ir.AttributeType.TENSOR:
        tensor = value.as_tensor()
        if tensor.dtype in _HALF:
            converted = ir.Tensor(tensor.numpy().astype(np.float32))
            node.attributes["value"] = ir.AttrTensor("value", converted)


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    uses = list(value.uses())
    cast = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT)})
    cast.outputs[0].name = f"{value.name}.float32"
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])
    if len(graph):
        graph.insert_before(graph[0], cast)


def _cast_output(graph: ir.Graph, position: int) -> None:
    old = graph.outputs[position]
    name, dtype = str(old.name), old.dtype
    assert dtype is not None
    cast = ir.node("Cast", [old], attributes={"to": int(dtype)})
    new = cast.outputs[0]
    new.shape, new.type = old.shape, old.type
    if not old.is_graph_input():
        old.name, old.type = f"{name}.float32", None
    new.name = name
    graph.outputs[position] = new
    graph.append(cast)
