"""Folding of batch norms into convolutions, in place on an onnx-ir graph."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def drop_identities(graph: ir.Graph) -> None:
    """Give every user of a copied initialiser its own: tracing merges those of equal content."""
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

    Other norms stay. Return the reduction of the number of learned parameters: two per channel
    of each folded norm, less the biases that convolutions gained.
    """
    norms = norms_of(graph)
    if not norms:
        return 0
    before = _learned_numbers(graph)
    for norm in norms:
        conv = conv_before(norm)
        if conv is not None:
            _fold(graph, conv, norm)
    drop_unused(graph)
    return before - _learned_numbers(graph)


def norms_of(graph: ir.Graph) -> list[ir.Node]:
    """Return the batch norms of a graph, in order."""
    return [node for node in graph if node.op_type == "BatchNormalization"]


def conv_before(norm: ir.Node) -> ir.Node | None:
    """Return the convolution that feeds only this norm, if the norm can be folded into it."""
    source = norm.inputs[0]
    conv = source.producer() if source is not None else None
    if source is None or conv is None or conv.op_type != "Conv":
        return None
    if source.is_graph_output() or len(source.uses()) != 1:
        return None
    # Weights that the graph computes, such as a slice of larger ones, cannot take it in.
    ready = all(value is None or value.is_initializer() for value in conv.inputs[1:])
    return conv if ready else None


def folded_numbers(
    weight: Array, bias: Array | None, norm: Sequence[Array], epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight (out, ...) and bias (out,) of a convolution with its norm folded in.

    ``norm`` are scale, shift, mean and variance, (out,) each.
    """
    scale, shift, mean, var = (array.astype(np.float64) for array in norm)
    factor = scale / np.sqrt(var + epsilon)
    shifted = -mean if bias is None else bias.astype(np.float64) - mean
    factors = factor.reshape(-1, *[1] * (weight.ndim - 1))
    # Multiplied in float64 and rounded once, without a float64 copy of the weight.
    folded = np.empty(weight.shape, np.float32)
    np.multiply(weight, factors, out=folded, dtype=np.float64, casting="same_kind")
    return folded, (shifted * factor + shift).astype(np.float32)


def bypass_norm(
    graph: ir.Graph, conv: ir.Node, norm: ir.Node, weight: ir.Value, bias: ir.Value
) -> None:
    """Give a convolution the folded weight and bias, and remove its norm from the graph."""
    conv.replace_input_with(1, weight)
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    conv.replace_input_with(2, bias)
    old, new = norm.outputs[0], conv.outputs[0]
    is_output = old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    if is_output:
        new.name, new.shape, new.type = old.name, old.shape, old.type


def drop_unused(graph: ir.Graph) -> None:
    """Remove constants and initialisers that no node reads."""
    for node in list(graph):
        if node.op_type == "Constant" and not any(value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def epsilon_of(norm: ir.Node) -> float:
    """Return what a norm adds to the variance."""
    return norm.attributes.get_float("epsilon", 1e-5)


def bias_name_of(weight_name: str) -> str:
    """Return the name of the bias that belongs to a weight."""
    return f"{weight_name.removesuffix('weight')}bias"


def _learned_numbers(graph: ir.Graph) -> int:
    statistics = {value for norm in norms_of(graph) for value in norm.inputs[3:5]}
    learned = (v for v in graph.initializers.values() if v not in statistics)
    return sum(v.const_value.size for v in learned if v.const_value is not None)


def _fold(graph: ir.Graph, conv: ir.Node, norm: ir.Node) -> None:
    weight_value = conv.inputs[1]
    assert weight_value is not None
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    weight, bias = folded_numbers(
        _array(weight_value),
        _array(conv.inputs[2]) if has_bias else None,
        [_array(value) for value in norm.inputs[1:5]],
        epsilon_of(norm),
    )
    name = str(weight_value.name)
    new_weight = _initialiser(graph, name, weight)
    bypass_norm(graph, conv, norm, new_weight, _initialiser(graph, bias_name_of(name), bias))


def _array(value: ir.Value | None) -> Array:
    assert value is not None
    # A norm without learned scale and shift has them as constants.
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def _initialiser(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register an initialiser; an existing one that others may use keeps its values."""
    if name in graph.initializers:
        old = graph.initializers.pop(name)
        spare = f"{name}.before"
        while spare in graph.initializers:
            spare += ".before"
        old.name = spare
        if old.uses():
            graph.register_initializer(old)
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value
