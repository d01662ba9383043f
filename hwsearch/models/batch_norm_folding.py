"""Folding of batch norms into convolutions, in place on an onnx-ir graph."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Fold:
    """A batch norm that was folded: names of tensors.

    ``taken`` are the weight and, if there is one, the bias of the convolution, then scale, shift,
    mean and variance of the norm. A folded weight keeps its name, ``bias`` names the folded bias.
    """

    taken: tuple[str, ...]
    bias: str
    epsilon: float


def fold_batch_norms(
    graph: ir.Graph, names: Collection[str] | None = None
) -> tuple[list[Fold], int]:
    """Fold each batch norm into the convolution that feeds it alone, in float64.

    Other norms stay. With ``names`` only tensors of these names are folded, and only those that
    are used once.

    Returns:
        The folded norms, and the reduction of the number of learned parameters: two per channel
        of each folded norm, less the biases that convolutions gained.
    """
    norms, folds = norms_of(graph), []
    if not norms:
        return [], 0
    before = _learned_numbers(graph)
    for norm in norms:
        conv = conv_before(norm)
        if conv is not None and (names is None or _are_alone(graph, conv, norm, names)):
            folds.append(_fold(graph, conv, norm))
            names = None if names is None else set(names) - set(folds[-1].taken)
    drop_unused(graph)
    return folds, before - _learned_numbers(graph)


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
    conv: Sequence[Array], norm: Sequence[Array], epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight (out, ...) and bias (out,) of a convolution with its norm folded in.

    ``conv`` are its weight and, if it has one, its bias; ``norm`` are scale, shift, mean and
    variance, (out,) each.
    """
    scale, shift, mean, var = (array.astype(np.float64) for array in norm)
    factor = scale / np.sqrt(var + epsilon)
    weight, *bias = conv
    shifted = bias[0].astype(np.float64) - mean if bias else -mean
    factors = factor.reshape(-1, *[1] * (weight.ndim - 1))
    # Multiplied in float64 and rounded once, without a float64 copy of the weight.
    folded = np.empty(weight.shape, np.float32)
    np.multiply(weight, factors, out=folded, dtype=np.float64, casting="same_kind")
    return folded, (shifted * factor + shift).astype(np.float32)


def drop_unused(graph: ir.Graph) -> None:
    """Remove constants and initialisers that no node reads."""
    for node in list(graph):
        if node.op_type == "Constant" and not any(value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _learned_numbers(graph: ir.Graph) -> int:
    statistics = {value for norm in norms_of(graph) for value in norm.inputs[3:5]}
    learned = (v for v in graph.initializers.values() if v not in statistics)
    return sum(v.const_value.size for v in learned if v.const_value is not None)


def _taken(conv: ir.Node, norm: ir.Node) -> list[ir.Value]:
    """Return the tensors of a convolution and of its norm, see `Fold`."""
    return [value for value in (*conv.inputs[1:], *norm.inputs[1:5]) if value is not None]


def _bias_name(taken: Sequence[ir.Value]) -> str:
    """Return the name of the folded bias, which may be new."""
    return (
        str(taken[1].name)
        if len(taken) == 6
        else f"{str(taken[0].name).removesuffix('weight')}bias"
    )


def _are_alone(graph: ir.Graph, conv: ir.Node, norm: ir.Node, names: Collection[str]) -> bool:
    """Return whether the tensors have these names and one use each, and the bias is no other's."""
    taken = _taken(conv, norm)
    is_free = len(taken) == 6 or _bias_name(taken) not in graph.initializers
    return is_free and all(value.name in names and len(value.uses()) == 1 for value in taken)


def _fold(graph: ir.Graph, conv: ir.Node, norm: ir.Node) -> Fold:
    taken = _taken(conv, norm)
    fold = Fold(
        taken=tuple(str(value.name) for value in taken),
        bias=_bias_name(taken),
        epsilon=norm.attributes.get_float("epsilon", 1e-5),
    )
    arrays = [_array(value) for value in taken]
    weight, bias = folded_numbers(arrays[:-4], arrays[-4:], fold.epsilon)
    conv.resize_inputs(3)
    conv.replace_input_with(1, _initialiser(graph, fold.taken[0], weight))
    conv.replace_input_with(2, _initialiser(graph, fold.bias, bias))
    old, new = norm.outputs[0], conv.outputs[0]
    is_output = old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    if is_output:
        new.name, new.shape, new.type = old.name, old.shape, old.type
    return fold


def _array(value: ir.Value) -> Array:
    # A norm without learned scale and shift has them as constants.
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def _initialiser(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register an initialiser; an existing one that others may use keeps its values."""
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    old = graph.initializers.get(name)
    graph.initializers[name] = value
    if old is not None and old.uses():
        spare = f"{name}.before"
        while spare in graph.initializers:
            spare += ".before"
        old.name = spare
        graph.initializers[spare] = old
    return value
