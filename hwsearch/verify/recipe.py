"""Verification of static int8 against its recipe: blocks, ranges of activations, and their scales.

A file states the range of every activation that it quantises, and of mixed precision the nodes of
every block. From both, and from the file without its QuantizeLinear and DequantizeLinear nodes, it
is written again; where these nodes are, and the scales of activations, have to be the same bits.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwsearch.architectures import PRECISION
from hwsearch.errors import EvaluationError, VerificationError
from hwsearch.models.artifact import MODEL
from hwsearch.models.convert import BLOCKS
from hwsearch.models.int8_numbers import dequantised
from hwsearch.models.onnx_file import emptied, read_metadata
from hwsearch.models.qdq import Int8Writer
from hwsearch.models.quantize import RANGES
from hwsearch.precision import file_kind
from hwsearch.quantization import INT8, MIXED, OPTIONS, Quantization

_BACK = "DequantizeLinear"


def check_blocks(card: Mapping[str, Any]) -> None:
    """Refuse a card whose precision, blocks and architecture contradict each other."""
    blocks, precision = card.get("blocks") or {}, card.get("precision", "fp32")
    if blocks and file_kind(blocks) != precision:
        raise VerificationError(
            f"the card says precision {precision}, and its blocks are {_counted(blocks)}"
        )
    for choice, option in card["architecture"].items():
        kind, _, block = choice.partition(".")
        if kind == PRECISION and block and blocks and blocks.get(block) != option:
            raise VerificationError(
                f"the card says that block {block} is {blocks.get(block, 'not there')}, and its "
                f"architecture that it is {option}"
            )
    of_all = card["architecture"].get(PRECISION)
    if of_all in OPTIONS and precision != of_all:
        raise VerificationError(
            f"the card says precision {precision}, and its architecture {of_all}"
        )


def check_recipe(model: onnx.ModelProto, blocks: Mapping[str, str]) -> bool:
    """Return whether a model states its ranges; refuse one that does not follow from them.

    Args:
        model: A file of any precision; without ranges, as of earlier versions, nothing is checked.
        blocks: Block -> precision, as the card says; where it is mixed, they are checked against
            the nodes of blocks that the file states.

    Raises:
        VerificationError: Other tensors are quantised than those of the blocks in int8, or a
            scale or zero point does not follow from its range.
    """
    stated = read_metadata(model)
    if RANGES not in stated:
        return False
    ranges = {name: (float(low), float(high)) for name, (low, high) in _json(stated[RANGES])}
    how = Quantization.stated(stated.get("quantization", ""))
    nodes = None
    if stated.get("precision") == MIXED:
        nodes = {name for name, block in _blocks_of(stated).items() if blocks.get(block) == INT8}
    try:
        again = Int8Writer(float32_form(model), ranges, how).write(nodes)
    except EvaluationError as error:
        raise VerificationError(f"{MODEL} states no ranges to write it from: {error}") from error
    _compare_nodes(model, again)
    _compare_scales(model, again, ranges)
    _check_biases(model)
    return True


def _json(text: str) -> Any:
    return json.loads(text).items()


def _blocks_of(stated: Mapping[str, str]) -> dict[str, str]:
    """Return node -> block, as a file of mixed precision states it."""
    if BLOCKS not in stated:
        raise VerificationError(f"{MODEL} is mixed, and states no nodes of its blocks")
    return {node: block for block, nodes in _json(stated[BLOCKS]) for node in nodes}


def _counted(blocks: Mapping[str, str]) -> str:
    kinds = sorted(set(blocks.values()))
    return ", ".join(f"{sum(p == kind for p in blocks.values())} {kind}" for kind in kinds)


def float32_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a static int8 model without its nodes that quantise, with the names of before.

    Constants have the values of their integers.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    renamed: dict[str, str] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            renamed[node.input[0]] = _tensor(node)
        elif node.op_type == _BACK:
            name = renamed[node.output[0]] = _tensor(node)
            if node.input[0] in constants and name not in constants:
                arrays[name] = _dequantised(node, constants)
    result = emptied(model)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", _BACK):
            kept = result.graph.node.add()
            kept.CopyFrom(node)
            kept.input[:] = [renamed.get(name, name) for name in node.input]
            kept.output[:] = [renamed.get(name, name) for name in node.output]
    numbers = _numbers(model)
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name not in numbers)
    made = (numpy_helper.from_array(array, name) for name, array in arrays.items())
    result.graph.initializer.extend(made)
    return result


def _tensor(node: onnx.NodeProto) -> str:
    """Return the name of the tensor that a node quantises, or dequantises."""
    return node.name.removesuffix(f"_{node.op_type}")


def _numbers(model: onnx.ModelProto) -> set[str]:
    """Return the names of all integers, scales and zero points."""
    kinds = ("QuantizeLinear", _BACK)
    return {
        name
        for node in model.graph.node
        if node.op_type in kinds
        for name in node.input[0 if node.op_type == _BACK else 1 :]
    }


def _dequantised(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> NDArray[np.float32]:
    integers, *scales = (numpy_helper.to_array(constants[name]) for name in node.input)
    axis = next((each.i for each in node.attribute if each.name == "axis"), None)
    return dequantised(integers, (scales[0], scales[1]), axis if scales[0].size > 1 else None)


def _compare_nodes(model: onnx.ModelProto, again: onnx.ModelProto) -> None:
    """Refuse other nodes than those of the file written again."""
    found, expected = (dict.fromkeys(_quantised(each)) for each in (model, again))
    if extra := [name for name in found if name not in expected]:
        raise VerificationError(
            f"{MODEL} quantises {extra[0]!r}, which no block in int8 reads or makes"
            f"{_more(len(extra))}"
        )
    if missing := [name for name in expected if name not in found]:
        raise VerificationError(
            f"{MODEL} leaves {missing[0]!r} in float32, which a block in int8 reads or makes"
            f"{_more(len(missing))}"
        )
    for ours, theirs in zip(model.graph.node, again.graph.node, strict=False):
        if ours != theirs:
            raise VerificationError(f"{MODEL} has a node {ours.name!r} that its recipe lacks")
    if len(model.graph.node) != len(again.graph.node):
        raise VerificationError(
            f"{MODEL} has {len(model.graph.node)} nodes, and by its recipe {len(again.graph.node)}"
        )


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""


def _quantised(model: onnx.ModelProto) -> Iterator[str]:
    return (_tensor(node) for node in model.graph.node if node.op_type == _BACK)


def _compare_scales(
    model: onnx.ModelProto, again: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Refuse scales and zero points of activations that do not follow from their ranges."""
    found, expected = (
        {tensor.name: tensor for tensor in each.graph.initializer} for each in (model, again)
    )
    for name, ends in ranges.items():
        for part, what in (("scale", "scale"), ("zero_point", "zero point")):
            wanted = expected.get(f"{name}_{part}")
            if wanted is None:  # it has the scale of another tensor
                continue
            ours, theirs = (
                numpy_helper.to_array(each) for each in (found[f"{name}_{part}"], wanted)
            )
            if ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
                raise VerificationError(
                    f"{MODEL} has {what} {ours} for {name!r}, and {theirs} follows from its range "
                    f"{ends[0]:g} to {ends[1]:g}"
                )


def _check_biases(model: onnx.ModelProto) -> None:
    """Refuse a convolution whose bias has not the product of the scales of input and weight."""
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {n.output[0]: n for n in model.graph.node if n.op_type == _BACK}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        parts = [made[name] for name in node.input if name in made]
        if len(parts) < 3 or parts[2].input[0] not in scales:
            continue
        data, weight, bias = (numpy_helper.to_array(scales[each.input[1]]) for each in parts)
        if not np.array_equal(bias, (data * weight).reshape(-1)):
            raise VerificationError(
                f"the bias of {node.name!r} in {MODEL} has another scale than its input and "
                "weight give"
            )
