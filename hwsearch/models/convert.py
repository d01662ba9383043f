"""Conversion of a float32 model to the precision of each of its blocks."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx

import hwsearch
from hwsearch.models.dynamic_int8 import DynamicInt8Writer
from hwsearch.models.int4_weights import Int4Writer
from hwsearch.models.qdq_plan import QUANTIZED
from hwsearch.models.quantize import Calibration, quantize_int8, state, to_fp16
from hwsearch.precision import Node, file_kind, spread
from hwsearch.quantization import DYNAMIC, FP16, FP32, INT4, INT8, MIXED, Quantization
from hwsearch.supernets.supernet import Supernet

BLOCKS = "blocks"  # entry of metadata: block -> its nodes that static int8 has a rule for


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """Converts float32 models.

    Attributes:
        quantization: Settings of int8.
        calibrate: Returns what int8 takes from samples of the model that is converted.
    """

    quantization: Quantization
    calibrate: Callable[[onnx.ModelProto], Calibration]

    def __call__(
        self,
        model: onnx.ModelProto,
        precisions: Mapping[str, str],
        blocks: Mapping[str, str] | None = None,
    ) -> onnx.ModelProto:
        """Return a model in other precisions, with the same inputs, outputs and names.

        Args:
            model: A float32 model, which is not changed; returned if nothing is to be converted.
            precisions: Block -> precision, or ``{"": precision}`` for the whole model.
            blocks: Node -> block, where there are blocks.

        Raises:
            EvaluationError: A number does not fit into a precision, or the opset is too old.
        """
        kind = file_kind(precisions)
        if kind == FP32:
            return model
        if kind == FP16:
            return to_fp16(model)
        result = model
        if INT8 in precisions.values():
            nodes = _nodes(model, precisions, blocks, INT8)
            result = quantize_int8(model, self.calibrate(model), self.quantization, nodes=nodes)
        # After static int8, whose names of scales take precedence.
        if DYNAMIC in precisions.values():
            nodes = _nodes(model, precisions, blocks, DYNAMIC)
            result = DynamicInt8Writer(result, self.quantization).write(nodes)
        if INT4 in precisions.values():
            nodes = _nodes(model, precisions, blocks, INT4)
            result = Int4Writer(result).write(nodes)
        mixed = {BLOCKS: json.dumps(_with_rules(model, blocks or {}))} if kind == MIXED else {}
        state(result, precision=kind, converter=f"hwsearch {hwsearch.__version__}", **mixed)
        return result


def blocks_of(net: Supernet, model: onnx.ModelProto) -> Mapping[str, str] | None:
    """Return node -> block of a float32 model of a supernet; None without precisions of blocks."""
    if net.precision is None or not net.precision.blocks:
        return None
    given: Mapping[str, str] | None = getattr(net.network, "node_blocks", None)
    return node_blocks(model, net.precision.blocks) if given is None else given


def _nodes(
    model: onnx.ModelProto,
    precisions: Mapping[str, str],
    blocks: Mapping[str, str] | None,
    precision: str,
) -> Collection[str] | None:
    """Return the names of the nodes of a precision; None for all."""
    if file_kind(precisions) == precision:
        return None
    of_nodes = blocks or {}
    return {
        node.name
        for node in model.graph.node
        if precisions.get(of_nodes.get(node.name, ""), FP32) == precision
    }


def _with_rules(model: onnx.ModelProto, blocks: Mapping[str, str]) -> dict[str, list[str]]:
    """Return block -> its nodes that static int8 has a rule for."""
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in QUANTIZED and node.name in blocks:
            found.setdefault(blocks[node.name], []).append(node.name)
    return found


def node_blocks(model: onnx.ModelProto, names: Collection[str]) -> dict[str, str]:
    """Return node -> block of a model, by the names of weights and of nodes.

    Args:
        model: Names of a block's weights begin with ``BLOCK.``, or those of its nodes with
            ``BLOCK/``.
        names: The blocks. Other nodes belong to the block that makes their first input.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    longest_first = sorted(names, key=len, reverse=True)

    def block_of(node: Node) -> str | None:
        paths = [*(name for name in node.input if name in weights), node.name.replace("/", ".")]
        pairs = ((path, name) for path in paths for name in longest_first)
        return next((name for path, name in pairs if path.startswith(f"{name}.")), None)

    return spread(model.graph.node, block_of)
