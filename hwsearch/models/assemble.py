"""A subnet's ONNX graph, assembled from cached graphs of its blocks."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from hwsearch.blocks import Block
from hwsearch.errors import HwsearchError
from hwsearch.models.batch_norm_folding import (
    bias_name_of,
    bypass_norm,
    conv_before,
    drop_identities,
    epsilon_of,
    folded_numbers,
    norms_of,
)
from hwsearch.models.trace import OPSET, opset_of, trace
from hwsearch.supernets.interface import InputSpec, Network, TensorSpec

# Operators whose traced graphs are valid for every height and width.
SIZELESS = frozenset(
    (
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "Conv", "Div",
        "Flatten", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity",
        "LeakyRelu", "MaxPool", "Mul", "Relu", "Sigmoid", "Sub", "Tanh",
    )
)  # fmt: skip


class NotAChainError(Exception):
    """A subnet cannot be assembled from blocks and is traced as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A batch norm folded out of a block's graph: names of tensors in the block.

    ``weight`` is the convolution's (the folded one keeps the name), ``bias`` its bias or None,
    ``norm`` are scale, shift, mean and variance.
    """

    weight: str
    bias: str | None
    norm: tuple[str, ...]
    epsilon: float


@dataclass(frozen=True, slots=True, eq=False)
class BlockGraph:
    """The traced graph of one block with one input and output, under the block's tensor names.

    ``learned`` initialisers have no values, ``folds`` are the folded norms, ``saved`` is the
    reduction of learned parameters, ``links`` caches the graph under the model's names.
    """

    graph: ir.Graph
    learned: frozenset[str]
    folds: tuple[Fold, ...]
    saved: int
    links: "dict[tuple[str, str, str | None], Link]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A block's graph at one place of a chain, without values.

    ``nodes`` and ``output`` have the model's names, ``constants`` those of the block.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, onnx.TensorProto]
    output: str


_kept: WeakKeyDictionary[Network, dict[Any, BlockGraph]] = WeakKeyDictionary()


def assemble(
    network: Network,
    blocks: list[Block] | None,
    tensors: Mapping[str, Tensor],
    module_of: Callable[[str], nn.Module],
    spec: InputSpec,
) -> tuple[onnx.ModelProto, int]:
    """Join the graphs of the blocks, filled with the subnet's tensors.

    ``network`` is the key of the graph cache; ``module_of`` returns the module of a block by name
    and is called for blocks not traced yet.

    Returns:
        A model with a dynamic batch, norms folded into the convolutions before them in the same
        block, and the reduction of the number of learned parameters by folding.

    Raises:
        NotAChainError: It is no chain, has other than one input and output, or a block's graph
            holds numbers that are none of its tensors.
    """
    if not blocks:
        raise NotAChainError("it is no chain of blocks")
    if len(spec.inputs) != 1 or len(spec.outputs) != 1:
        raise NotAChainError(f"{len(spec.inputs)} inputs and {len(spec.outputs)} outputs")
    try:
        kept = _kept.setdefault(network, {})
    except TypeError:  # an unhashable network has no cache
        kept = {}
    opsets = [helper.make_opsetid("", OPSET)]
    ir_version = helper.find_min_ir_version_for(opsets)
    model = onnx.ModelProto(ir_version=ir_version, opset_import=opsets)
    shape: list[str | int | None] = ["batch", *spec.inputs[0].shape]
    entry = helper.make_tensor_value_info(spec.inputs[0].name, onnx.TensorProto.FLOAT, shape)
    model.graph.input.append(entry)
    last, saved = spec.inputs[0].name, 0
    for block in blocks:
        is_last = block is blocks[-1]
        block_graph = _block_graph(kept, block, module_of, is_last=is_last)
        link = _link(block_graph, block.name, last, spec.outputs[0] if is_last else None)
        _append(model.graph, block, block_graph, link, tensors)
        last = link.output
        saved += block_graph.saved
        if is_last:  # traced at this input size, so its output shape is right
            output = ir.to_proto(block_graph.graph.outputs[0])
            output.name = last
            model.graph.output.append(output)
    return model, saved


def tensors_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer by full name, five times as fast as torch's methods."""
    for held in (module._parameters, module._buffers):
        for name, tensor in held.items():
            if tensor is not None:
                yield prefix + name, tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from tensors_of(child, f"{prefix}{name}.")


def _block_graph(
    kept: dict[Any, BlockGraph],
    block: Block,
    module_of: Callable[[str], nn.Module],
    *,
    is_last: bool,
) -> BlockGraph:
    """Return the cached or traced graph of a block; by image size where it may depend on that."""
    spec = block.spec
    sizeless = (spec.kind, spec.hyperparameters, spec.input_shape[:1], len(spec.input_shape))
    # The last block's graph has the output shape, which depends on the input size.
    for key in (spec,) if is_last else (sizeless, spec):
        if key in kept:
            return kept[key]
    made = _trace_block(block, module_of(block.name))
    any_size = all(node.op_type in SIZELESS for node in made.graph)
    kept[sizeless if any_size and not is_last else spec] = made
    return made


def _trace_block(block: Block, module: nn.Module) -> BlockGraph:
    spec = InputSpec(
        inputs=(TensorSpec(name="input", shape=block.spec.input_shape, dtype=block.spec.dtype),),
        outputs=("output",),
    )
    try:
        traced = trace(module, spec)
    except HwsearchError as error:
        raise NotAChainError(f"block {block.name} cannot be traced alone: {error}") from error
    if opset_of(traced) != OPSET:
        raise NotAChainError(f"block {block.name} needs opset {opset_of(traced)}")
    graph = ir.from_proto(traced).graph
    drop_identities(graph)
    names = {*dict(module.named_parameters()), *dict(module.named_buffers())}
    if any(_may_be_weights(constant) for constant in _constants(graph, names)):
        raise NotAChainError(f"block {block.name} holds numbers that are no tensor of it")
    learned = frozenset(names & set(graph.initializers))
    for name in learned:
        graph.initializers[name].const_value = None  # frees the values of the traced subnet
    folds = tuple(_fold_inside(graph, learned))
    sizes = [math.prod(module.get_parameter(fold.norm[0]).shape) for fold in folds]
    saved = sum(size if f.bias is None else 2 * size for f, size in zip(folds, sizes, strict=True))
    return BlockGraph(graph, learned, folds, saved)


def _fold_inside(graph: ir.Graph, learned: frozenset[str]) -> Iterator[Fold]:
    """Remove norms from a block's graph, and yield how to fold their values."""
    done: set[str] = set()
    for norm in norms_of(graph):
        conv = conv_before(norm)
        if conv is None:
            continue
        taken = [value for value in (*conv.inputs[1:], *norm.inputs[1:5]) if value is not None]
        names = [str(value.name) for value in taken]
        # Tensors used or folded twice, or not of the block, are folded in the whole graph.
        if any(len(value.uses()) > 1 for value in taken) or not learned - done >= set(names):
            continue
        done.add(names[0])
        weight, bias = taken[0], taken[1] if len(taken) == 6 else None
        name = bias_name_of(names[0])
        if bias is None and name in graph.initializers:
            continue
        if bias is None:
            shape = ir.Shape(weight.shape[:1]) if weight.shape is not None else None
            bias = ir.Value(name=name, shape=shape, type=weight.type)
            graph.initializers[name] = bias
        bypass_norm(graph, conv, norm, weight, bias)
        for value in taken[-4:]:
            del graph.initializers[str(value.name)]
        yield Fold(
            weight=names[0],
            bias=names[1] if len(taken) == 6 else None,
            norm=tuple(names[-4:]),
            epsilon=epsilon_of(norm),
        )


def _constants(graph: ir.Graph, names: set[str]) -> Iterator[ir.TensorProtocol]:
    """Yield the tensors in a graph except those of these names."""
    for name, value in graph.initializers.items():
        if name not in names and value.const_value is not None:
            yield value.const_value
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()


def _may_be_weights(constant: ir.TensorProtocol) -> bool:
    """Return whether a constant may be a weight; constants of shapes and norms are not."""
    array = constant.numpy()
    return bool(np.issubdtype(array.dtype, np.floating) and np.ptp(array) > 0)


def _link(made: BlockGraph, block: str, start: str, end: str | None) -> Link:
    """Return a block's graph under the names of one place, cached: writing nodes is slow."""
    key = (block, start, end)
    if key not in made.links:
        names = {made.graph.inputs[0]: start}
        names |= {value: f"{block}.{name}" for name, value in made.graph.initializers.items()}
        names |= {value: f"{block}{value.name}" for node in made.graph for value in node.outputs}
        output = made.graph.outputs[0]
        if end is not None:
            if output.producer() is None:
                raise NotAChainError(f"its last block, {block}, does nothing")
            names[output] = end
        made.links[key] = Link(
            nodes=tuple(_renamed(node, block, names) for node in made.graph),
            constants={
                name: _tensor(names[value], value.const_value.numpy())
                for name, value in made.graph.initializers.items()
                if value.const_value is not None
            },
            output=names[output],
        )
    return made.links[key]


def _renamed(node: ir.Node, block: str, names: Mapping[ir.Value, str]) -> onnx.NodeProto:
    proto = ir.to_proto(node)
    proto.name = f"{block}{node.name}"
    proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
    proto.output[:] = [names[value] for value in node.outputs]
    return proto


def _append(
    graph: onnx.GraphProto,
    block: Block,
    made: BlockGraph,
    link: Link,
    state: Mapping[str, Tensor],
) -> None:
    """Add a block's nodes and its tensors, filled with the subnet's values."""
    _check_shapes(block, made, state)
    graph.node.extend(link.nodes)
    folded = dict(_folded(block, made, state))
    for name in made.graph.initializers:
        full_name = f"{block.name}.{name}"
        if name in folded:
            _fill(graph.initializer.add(), full_name, folded[name])
        elif name in made.learned:
            _fill(graph.initializer.add(), full_name, state[full_name].detach().numpy())
        else:
            graph.initializer.append(link.constants[name])


def _tensor(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    _fill(tensor, name, array)
    return tensor


def _fill(tensor: onnx.TensorProto, name: str, array: NDArray[Any]) -> None:
    """Write an array in place, because a message that is added to another is copied."""
    tensor.name = name
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _check_shapes(block: Block, made: BlockGraph, state: Mapping[str, Tensor]) -> None:
    """Raise NotAChainError if a block of equal spec has other tensor shapes."""
    for name, value in made.graph.initializers.items():
        if name not in made.learned:
            continue
        tensor = state.get(f"{block.name}.{name}")
        if tensor is None or value.shape != tuple(tensor.shape):
            raise NotAChainError(f"block {block.name} has the spec of one with other tensors")


def _folded(
    block: Block, made: BlockGraph, state: Mapping[str, Tensor]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield name and values of every tensor with a folded norm."""

    def of(name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = state[f"{block.name}.{name}"].detach().numpy()
        return array

    for fold in made.folds:
        bias = None if fold.bias is None else of(fold.bias)
        norm = [of(name) for name in fold.norm]
        weight, shift = folded_numbers(of(fold.weight), bias, norm, fold.epsilon)
        yield fold.weight, weight
        yield bias_name_of(fold.weight) if fold.bias is None else fold.bias, shift
