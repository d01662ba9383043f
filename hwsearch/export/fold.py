"""Graph steps between tracing and the shipped file, each in place on an onnx-ir graph."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def drop_identities(graph: ir.Graph) -> None:
    """Give every user of a copied initialiser its own: tracing shares those of equal content."""
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "Identity" or source is None or source.const_value is None:
            continue
        target = node.outputs[0]
        if target.is_graph_output():
            continue
        name = target.name
        array = source.const_value.numpy()
        ir.convenience.replace_all_uses_with(target, _initialiser(graph, f"{name}", array.copy()))
        graph.remove(node, safe=True)


def fold_batch_norms(graph: ir.Graph) -> int:
    """Fold each batch norm into the convolution that feeds it alone, in float64.

    A norm that follows anything else stays.

    Returns:
        By how many learned numbers the graph has become smaller: two per channel of each folded
        norm, less the biases that convolutions gained.
    """
    before = _learned_numbers(graph)
    for node in list(graph):
        if node.op_type != "BatchNormalization":
            continue
        source = node.inputs[0]
        conv = source.producer() if source is not None else None
        if source is None or conv is None or conv.op_type != "Conv":
            continue
        if source.is_graph_output() or len(source.uses()) != 1:
            continue
        # Weights that the graph computes, such as a slice of larger ones, cannot take it in.
        if all(value is None or value.is_initializer() for value in conv.inputs[1:]):
            _fold(graph, conv, node)
    _drop_unused(graph)
    return before - _learned_numbers(graph)


def _learned_numbers(graph: ir.Graph) -> int:
    norms = [node for node in graph if node.op_type == "BatchNormalization"]
    statistics = {value for norm in norms for value in norm.inputs[3:5]}
    learned = (v for v in graph.initializers.values() if v not in statistics)
    return sum(v.const_value.size for v in learned if v.const_value is not None)


def _fold(graph: ir.Graph, conv: ir.Node, norm: ir.Node) -> None:
    scale, shift, mean, var = (_array(value) for value in norm.inputs[1:5])
    weight_value = conv.inputs[1]
    weight = _array(weight_value)
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    bias = _array(conv.inputs[2]) if has_bias else np.zeros(len(scale))
    epsilon = norm.attributes.get_float("epsilon", 1e-5)

    factor = scale / np.sqrt(var + epsilon)
    assert weight_value is not None
    name = str(weight_value.name)
    new_weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = (bias - mean) * factor + shift

    conv.replace_input_with(1, _initialiser(graph, name, new_weight.astype(np.float32)))
    bias_name = f"{name.removesuffix('weight')}bias"
    bias_value = _initialiser(graph, bias_name, new_bias.astype(np.float32))
    if len(conv.inputs) > 2:
        conv.replace_input_with(2, bias_value)
    else:
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias_value)
    old, new = norm.outputs[0], conv.outputs[0]
    is_output = old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    if is_output:
        new.name, new.shape, new.type = old.name, old.shape, old.type


def _array(value: ir.Value | None) -> NDArray[np.float64]:
    assert value is not None
    # A norm without learned scale and shift has them as constants.
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy().astype(np.float64)


def _initialiser(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register an initialiser; one of that name that others may still use keeps its values."""
    if name in graph.initializers:
        old = graph.initializers.pop(name)
        spare = f"{name}.before"
        while spare in graph.initializers:
            spare += ".before"
        old.name = spare
        if old.uses():
            graph.register_initializer(old)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def _drop_unused(graph: ir.Graph) -> None:
    for node in list(graph):
        if node.op_type == "Constant" and not any(value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
