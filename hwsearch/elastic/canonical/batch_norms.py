"""Folding of batch norms into the convolution or linear layer before them, with origins."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.elastic.canonical.constants import constant, origin_of, unused_name
from hwsearch.elastic.canonical.shapes import Trace
from hwsearch.elastic.graph import Origin
from hwsearch.models.batch_norm_folding import drop_unused, folded_numbers, norms_of

Array = NDArray[Any]


def fold_norms(graph: ir.Graph, traces: Sequence[Trace]) -> None:
    """Fold each batch norm into the layer that feeds it alone.

    Layers are Conv, ConvTranspose, Gemm, MatMul, and MatMul followed by the addition of a bias;
    their weights and the norm's are float32 initialisers that nothing else reads.
    """
    for norm in norms_of(graph):
        layer = _layer_before(norm, traces[0])
        if layer is not None:
            _fold(graph, norm, *layer)
    drop_unused(graph)


def _layer_before(norm: ir.Node, found: Trace) -> tuple[ir.Node, ir.Node | None] | None:
    """Return the layer that a norm can be folded into, and the addition of its bias."""
    source = norm.inputs[0]
    layer = _sole_producer(source)
    addition = None
    if layer is not None and layer.op_type == "Add":
        addition = layer
        products = [v for v in layer.inputs if v is not None and not v.is_initializer()]
        layer = _sole_producer(products[0]) if len(products) == 1 else None
        if layer is None or layer.op_type != "MatMul":
            return None
    if layer is None or layer.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    biases = (
        [value for value in addition.inputs if value and value.is_initializer()]
        if addition
        else []
    )
    parameters = [*layer.inputs[1:], *biases, *norm.inputs[1:5]]
    known = [value for value in parameters if value is not None]
    if not all(v.is_initializer() and v.dtype == ir.DataType.FLOAT for v in known):
        return None
    if any(len(value.uses()) != 1 for value in known):
        return None
    channels = norm.inputs[1].shape.numpy()[0] if norm.inputs[1] and norm.inputs[1].shape else 0
    if layer.op_type in ("Gemm", "MatMul"):
        shape = found.shape(source)
        weight = known[0].shape
        is_flat = shape is not None and len(shape) == 2 and weight is not None
        if not is_flat or len(weight or ()) != 2 or any(_size(b) != channels for b in biases):
            return None
    if layer.op_type == "Gemm":
        scales = (
            layer.attributes.get_float("alpha", 1.0),
            layer.attributes.get_float("beta", 1.0),
        )
        bias_sizes = [_size(value) for value in layer.inputs[2:] if value is not None]
        if scales != (1.0, 1.0) or any(size != channels for size in bias_sizes):
            return None
    return layer, addition


def _fold(graph: ir.Graph, norm: ir.Node, layer: ir.Node, addition: ir.Node | None) -> None:
    weight = layer.inputs[1]
    assert weight is not None
    bias, reader, position = _bias(layer, addition)
    statistics = [value for value in norm.inputs[1:5] if value is not None]
    names = tuple(origin.name for value in statistics if (origin := origin_of(value)))
    before, axes = _outputs_first(layer, _array(weight))
    arrays = [before] if bias is None else [before, _array(bias).reshape(-1)]
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    folded, shift = folded_numbers(arrays, [_array(value) for value in statistics], epsilon)
    _set(graph, layer, 1, weight, _restored(layer, folded, axes, _array(weight).shape), names)
    if bias is not None:
        _set(graph, reader, position, bias, shift, names)
    elif layer.op_type == "MatMul":
        added = _new_bias(graph, weight, shift, names)
        node = ir.node("Add", [layer.outputs[0], added], name=f"{norm.name}")
        ir.convenience.replace_nodes_and_values(
            graph, norm, [norm], [node], norm.outputs[:1], node.outputs
        )
        return
    else:
        layer.resize_inputs(3)
        layer.replace_input_with(2, _new_bias(graph, weight, shift, names))
    _bypass(graph, norm)


def _bypass(graph: ir.Graph, norm: ir.Node) -> None:
    old, new = norm.outputs[0], norm.inputs[0]
    assert new is not None
    is_output, name = old.is_graph_output(), old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    if is_output:
        new.name, new.shape, new.type = name, old.shape, old.type


def _bias(layer: ir.Node, addition: ir.Node | None) -> tuple[ir.Value | None, ir.Node, int]:
    """Return the bias, the node that reads it and where."""
    if addition is None:
        return layer.inputs[2] if len(layer.inputs) > 2 else None, layer, 2
    first = addition.inputs[0]
    position = 0 if first is not None and first.is_initializer() else 1
    return addition.inputs[position], addition, position


def _outputs_first(layer: ir.Node, weight: Array) -> tuple[Array, tuple[int, ...]]:
    """Return a weight with all its output channels on the first axis, and the permutation."""
    if layer.op_type == "ConvTranspose":  # (in, out / groups, ...)
        groups = layer.attributes.get_int("group", 1)
        split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        axes = (0, 2, 1, *range(3, split.ndim))
        moved = split.transpose(axes)
        return moved.reshape(groups * weight.shape[1], *moved.shape[2:]), axes
    is_transposed = layer.op_type == "Gemm" and bool(layer.attributes.get_int("transB", 0))
    if layer.op_type == "Conv" or is_transposed:
        return weight, ()
    return weight.T, (1, 0)


def _restored(
    layer: ir.Node, folded: Array, axes: tuple[int, ...], shape: tuple[int, ...]
) -> Array:
    """Undo `_outputs_first`."""
    if layer.op_type == "ConvTranspose":
        groups = layer.attributes.get_int("group", 1)
        split = folded.reshape(groups, shape[1], *folded.shape[1:])
        return np.ascontiguousarray(split.transpose(axes)).reshape(shape)  # its own inverse
    return np.ascontiguousarray(folded.T) if axes else folded


def _set(
    graph: ir.Graph,
    node: ir.Node,
    position: int,
    old: ir.Value,
    array: Array,
    norm: tuple[str, ...],
) -> None:
    """Give a node a folded array in place of an initialiser, of the same name."""
    name, origin = str(old.name), origin_of(old)
    node.replace_input_with(position, None)
    graph.initializers.pop(name)
    value = constant(name, array, None if origin is None else replace(origin, norm=norm))
    graph.register_initializer(value)
    node.replace_input_with(position, value)


def _new_bias(graph: ir.Graph, weight: ir.Value, array: Array, norm: tuple[str, ...]) -> ir.Value:
    stem = str(weight.name).removesuffix("weight").removesuffix(".") or str(weight.name)
    value = constant(unused_name(graph, f"{stem}.bias"), array, Origin(name="", norm=norm))
    graph.register_initializer(value)
    return value


def _sole_producer(value: ir.Value | None) -> ir.Node | None:
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.size
