"""Models that cannot be made elastic, and what can be done instead."""

import re
from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir

from hwsearch.elastic.model_file import NO_WEIGHTS
from hwsearch.errors import InputError
from hwsearch.models.onnx_file import QUANTIZED

LEAST_OPSET = 11
_QUANTIZED_NAME = re.compile(r"Quant|QLinear|QGemm|QAttention|QOrdered|QMoE|NBits|Bnb4|Integer")
_LOOPS = ("Loop", "Scan", "SequenceMap")
_TRAINING = ("BatchNormalization", "Dropout")
_FLOATS = (
    ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE
)  # fmt: skip
_PLAIN = (
    *_FLOATS, ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32,
    ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32,
    ir.DataType.UINT64,
)  # fmt: skip


def check_ends(graph: onnx.GraphProto) -> None:
    """Refuse models with inputs or outputs that are no tensors.

    Raises:
        InputError: There is one.
    """
    for what, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind not in (None, "tensor_type"):
                raise InputError(
                    f"{what} {value.name!r} is no tensor but of a {kind}; return and take "
                    "tensors alone (skl2onnx: options={'zipmap': False})"
                )


def check_operators(model: ir.Model) -> None:
    """Refuse quantised models, custom operators, loops, training mode and types but tensors.

    Functions must have been inlined.

    Raises:
        InputError: There is one of these.
    """
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    if quantised := [n for n in nodes if _is_quantised(n)]:
        raise InputError(
            f"the model is quantised: {_listed(quantised)}; give the float32 model it was made "
            "from: precision is chosen in the search"
        )
    opset = model.graph.opset_imports.get("", 0)
    if custom := [n for n in nodes if n.domain not in ("", "ai.onnx")]:
        raise InputError(f"the model has {_listed(custom)}{_custom_step(custom)}")
    if loops := [n for n in nodes if n.op_type in _LOOPS]:
        raise InputError(
            f"the model's control flow is dynamic: {_listed(loops)}; export the part without "
            "loops, such as one step of a decoder"
        )
    if training := [n for n in nodes if n.op_type in _TRAINING and _is_training(n, opset)]:
        raise InputError(
            f"the model was exported in training mode: {_listed(training)}; call model.eval() "
            "before the export"
        )
    _check_values("input", model.graph.inputs)
    _check_values("output", model.graph.outputs)


def check_sequences(model: ir.Model) -> None:
    """Refuse what is left of sequences of tensors, and optional ones."""
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    found = [n for n in nodes if "Sequence" in n.op_type or n.op_type.startswith("Optional")]
    if found:
        raise InputError(
            f"the model computes with sequences of tensors: {_listed(found)}; return and "
            "split tensors without Python lists, and export it again"
        )


def check_opset(model: ir.Model) -> None:
    """Refuse models of an old opset."""
    opset = model.graph.opset_imports.get("", LEAST_OPSET)
    if opset < LEAST_OPSET:
        raise InputError(
            f"the model has opset {opset}, and could not be converted; export it again with "
            f"opset {LEAST_OPSET} or later"
        )


def check_branches(model: ir.Model) -> None:
    """Refuse what is left of control flow after constants are folded."""
    if left := [n for n in model.graph if n.op_type == "If"]:
        raise InputError(
            f"the model's control flow depends on its inputs or their sizes: {_listed(left)}; "
            "export it with fixed sizes of the axes, or without the condition"
        )


def check_weights(model: ir.Model) -> None:
    """Refuse models without weights and weights that are NaN."""
    arrays = {
        str(name): value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype in _FLOATS
    }
    if not any(array.ndim >= 2 and array.size > 1 for array in arrays.values()):
        raise InputError(NO_WEIGHTS)
    for name, array in arrays.items():
        if array.ndim >= 1 and np.isnan(array.astype(np.float32, copy=False)).any():
            raise InputError(
                f"weight {name!r} has NaN values: training has diverged, or the file is damaged"
            )


def _is_quantised(node: ir.Node) -> bool:
    if node.domain in ("", "ai.onnx"):
        return node.op_type in QUANTIZED
    return bool(_QUANTIZED_NAME.search(node.op_type))


def _is_training(node: ir.Node, opset: int) -> bool:
    if node.op_type == "BatchNormalization":
        if opset < 14:  # more outputs than one train
            return any(output.uses() for output in node.outputs[1:])
        return bool(node.attributes.get_int("training_mode", 0))
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    known = None if mode is None else ir.convenience.get_const_tensor(mode)
    return mode is not None and (known is None or bool(known.numpy()))


def _custom_step(custom: Iterable[ir.Node]) -> str:
    domains = {node.domain for node in custom}
    if any(domain.startswith("com.microsoft") for domain in domains):
        return (
            ", which ONNX Runtime's optimiser writes; give the model as it was before, or export "
            "it without that optimiser"
        )
    if "ai.onnx.ml" in domains:
        return (
            ": operators of classical machine learning, which have no channels to remove; export "
            "the neural network alone"
        )
    return (
        ", which are not standard ONNX operators; export the model without them, or with them as "
        "model-local functions"
    )


def _check_values(what: str, values: Iterable[ir.Value]) -> None:
    for value in values:
        kind = value.type
        if kind is not None and kind.dtype not in (*_PLAIN, ir.DataType.UNDEFINED):
            step = "tokenise or decode before it" if kind.dtype == ir.DataType.STRING else ""
            raise InputError(
                f"{what} {value.name!r} has the type {kind.dtype.name}; give a model of numbers "
                f"in whole bytes{step and f', and {step}'}"
            )


def _listed(nodes: Iterable[ir.Node]) -> str:
    """Name operators and where they are, for messages."""
    kinds: dict[str, list[str]] = {}
    for node in nodes:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        kinds.setdefault(name, []).append(node.name or "without a name")
    return ", ".join(f"{len(names)} {kind} ({names[0]})" for kind, names in kinds.items())
