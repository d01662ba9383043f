"""Graphs of subnets that are PyTorch modules: assembled from cached graphs of their blocks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from hwsearch.blocks import Block
from hwsearch.errors import HwsearchError
from hwsearch.models.batch_norm_folding import (
    Fold,
    drop_identities,
    fold_batch_norms,
    folded_numbers,
)
from hwsearch.models.onnx_file import opset_of, tensors
from hwsearch.models.trace import ELEMENTWISE, OPSET, PER_SAMPLE, trace
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec, TensorSpec
from hwsearch.supernets.supernet import Supernet

# Operators whose traced graphs are valid for every height and width.
SIZELESS = PER_SAMPLE | ELEMENTWISE | {"Concat", "Constant", "Div", "Gemm"}
GRAPHS = "block graphs"  # the entry of a supernet's caches: key of a block -> its `BlockGraph`
Link: TypeAlias = tuple[tuple[onnx.NodeProto, ...], onnx.ValueInfoProto]


class NotAChainError(Exception):
    """A subnet cannot be assembled from blocks and is traced as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockGraph:
    """The traced graph of one block with one input and output, under the block's tensor names.

    ``shapes`` are those of the block's tensors, whose values the graph does not hold; ``folds``
    are the folded norms, ``saved`` is the reduction of learned parameters by them. ``links``
    caches nodes and output under the model's names, by block, input and output of the model.
    """

    graph: ir.Graph
    shapes: Mapping[str, tuple[int, ...]]
    folds: list[Fold]
    saved: int
    links: dict[tuple[str, str, str | None], Link] = field(default_factory=dict)


def module_model(
    net: Supernet, arch: Architecture, subnet: nn.Module | None = None
) -> tuple[onnx.ModelProto, int, str]:
    """Return the model of a subnet, with batch norms folded into the convolutions before them.

    ``subnet`` is its recalibrated network; None takes the supernet's. Return also the reduction of
    the number of learned parameters by folding, and how the graph was made.
    """

    @cache
    def network() -> nn.Module:
        return net.subnet(arch) if subnet is None else subnet.eval()

    spec = net.input_spec(arch)
    held = net.tensors(arch) if subnet is None else None
    made = "assembled from blocks"
    try:
        state = dict(tensors_of(network())) if held is None else held
        model, saved = _assembled(net, arch, state, network, spec)
    except NotAChainError as reason:
        traced = ir.from_proto(trace(network(), spec))
        drop_identities(traced.graph)
        model, saved, made = ir.to_proto(traced), 0, f"traced as a whole: {reason}"
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        whole = ir.from_proto(model)
        saved += fold_batch_norms(whole.graph)[1]
        model = ir.to_proto(whole)
    return model, saved, made


def tensors_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer by full name, five times as fast as torch's methods."""
    for held in (module._parameters, module._buffers):
        for name, tensor in held.items():
            if tensor is not None:
                yield prefix + name, tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from tensors_of(child, f"{prefix}{name}.")


def _assembled(
    net: Supernet,
    arch: Architecture,
    state: Mapping[str, Tensor],
    network: Callable[[], nn.Module],
    spec: InputSpec,
) -> tuple[onnx.ModelProto, int]:
    """Join the graphs of the blocks, filled with the subnet's tensors.

    ``network`` returns the subnet and is called for blocks not traced yet. Norms are folded into
    the convolutions before them in the same block; return also the reduction of the number of
    learned parameters by that.

    Raises:
        NotAChainError: It is no chain, has other than one input and output, or a block's graph
            holds numbers that are none of its tensors.
    """
    blocks = net.blocks(arch)
    if not blocks:
        raise NotAChainError("it is no chain of blocks")
    if len(spec.inputs) != 1 or len(spec.outputs) != 1:
        raise NotAChainError(f"{len(spec.inputs)} inputs and {len(spec.outputs)} outputs")
    opsets = [helper.make_opsetid("", OPSET)]
    ir_version = helper.find_min_ir_version_for(opsets)
    model = onnx.ModelProto(ir_version=ir_version, opset_import=opsets)
    shape: list[str | int | None] = ["batch", *spec.inputs[0].shape]
    last = helper.make_tensor_value_info(spec.inputs[0].name, onnx.TensorProto.FLOAT, shape)
    model.graph.input.append(last)
    graphs, saved = net.caches.setdefault(GRAPHS, {}), 0
    for block in blocks:
        end = spec.outputs[0] if block is blocks[-1] else None
        made = _block_graph(graphs, block, network, is_last=end is not None)
        nodes, last = _link(made, block.name, last.name, end)
        model.graph.node.extend(nodes)
        _append_tensors(model.graph, block.name, made, state)
        saved += made.saved
    model.graph.output.append(last)  # traced at this input size, so that its shape is right
    return model, saved


def _block_graph(
    graphs: dict[Any, BlockGraph],
    block: Block,
    network: Callable[[], nn.Module],
    *,
    is_last: bool,
) -> BlockGraph:
    """Return the cached or traced graph of a block; by image size where it may depend on that."""
    spec = block.spec
    sizeless = (spec.kind, spec.hyperparameters, spec.input_shape[:1], len(spec.input_shape))
    # The last block's graph has the output shape, which depends on the input size.
    for key in (spec,) if is_last else (sizeless, spec):
        if key in graphs:
            return graphs[key]
    made = _trace_block(block, network().get_submodule(block.name))
    any_size = all(node.op_type in SIZELESS for node in made.graph)
    graphs[sizeless if any_size and not is_last else spec] = made
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
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(module)}
    if any(_may_be_weights(each) for each in tensors(traced) if each.name not in shapes):
        raise NotAChainError(f"block {block.name} holds numbers that are no tensor of it")
    graph = ir.from_proto(traced).graph
    drop_identities(graph)
    shapes = {name: shape for name, shape in shapes.items() if name in graph.initializers}
    folds, saved = fold_batch_norms(graph, shapes)
    for name in {*shapes, *(fold.bias for fold in folds)} & set(graph.initializers):
        graph.initializers[name].const_value = None  # frees the values of the traced subnet
    return BlockGraph(graph, shapes, folds, saved)


def _may_be_weights(constant: onnx.TensorProto) -> bool:
    """Return whether a constant may be a weight; constants of shapes and norms are not."""
    array = numpy_helper.to_array(constant)
    return bool(np.issubdtype(array.dtype, np.floating) and np.ptp(array) > 0)


def _link(made: BlockGraph, block: str, start: str, end: str | None) -> Link:
    """Return a block's nodes and output under the names of one place, cached: it is slow."""
    key = (block, start, end)
    if key not in made.links:
        result = made.graph.outputs[0]
        names = {made.graph.inputs[0]: start}
        names |= {value: f"{block}.{name}" for name, value in made.graph.initializers.items()}
        names |= {value: f"{block}{value.name}" for node in made.graph for value in node.outputs}
        if end is not None:
            if result.producer() is None:
                raise NotAChainError(f"its last block, {block}, does nothing")
            names[result] = end
        output = ir.to_proto(result)
        output.name = names[result]
        made.links[key] = tuple(_renamed(node, block, names) for node in made.graph), output
    return made.links[key]


def _renamed(node: ir.Node, block: str, names: Mapping[ir.Value, str]) -> onnx.NodeProto:
    proto = ir.to_proto(node)
    proto.name = f"{block}{node.name}"
    proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
    proto.output[:] = [names[value] for value in node.outputs]
    return proto


def _append_tensors(
    graph: onnx.GraphProto, block: str, made: BlockGraph, state: Mapping[str, Tensor]
) -> None:
    """Add a block's tensors, with the subnet's values and its norms folded in."""

    def of(name: str) -> NDArray[Any]:
        tensor = state.get(f"{block}.{name}")
        if tensor is None or tensor.shape != made.shapes[name]:
            raise NotAChainError(f"block {block} has the spec of one with other tensors")
        array: NDArray[Any] = tensor.detach().numpy()
        return array

    folded: dict[str, NDArray[Any]] = {}
    for fold in made.folds:
        arrays = [of(name) for name in fold.taken]
        weight, bias = folded_numbers(arrays[:-4], arrays[-4:], fold.epsilon)
        folded |= {fold.taken[0]: weight, fold.bias: bias}
    for name, value in made.graph.initializers.items():
        if name in folded:
            array = folded[name]
        else:
            array = of(name) if value.const_value is None else value.const_value.numpy()
        tensor = graph.initializer.add()  # filled in place: one that is appended is copied
        tensor.name = f"{block}.{name}"
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.dims.extend(array.shape)
        tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
