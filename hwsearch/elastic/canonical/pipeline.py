"""The steps to canonical form, in order."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from hwsearch.elastic.canonical.batch_norms import fold_norms
from hwsearch.elastic.canonical.cleaning import (
    OPSET,
    drop_idle_nodes,
    inline_functions,
    make_identity,
    name_nodes,
    upgraded,
)
from hwsearch.elastic.canonical.constants import fold_constants, lift_constants, unshare
from hwsearch.elastic.canonical.control_flow import inline_branch
from hwsearch.elastic.canonical.float32 import to_float32
from hwsearch.elastic.canonical.refusals import (
    check_branches,
    check_ends,
    check_operators,
    check_opset,
    check_sequences,
    check_weights,
)
from hwsearch.elastic.canonical.scatters import simplify_scatters
from hwsearch.elastic.canonical.sequences import SequenceReplacement, has_sequences
from hwsearch.elastic.canonical.shapes import KnownBranch, Trace, trace
from hwsearch.elastic.canonical.sizes import fold_sizes
from hwsearch.errors import InputError

_ROUNDS = 5  # of folding: what one round folds can make more constant


def prepared(
    proto: onnx.ModelProto, folder: Path | None = None, *, upgrade: bool = True
) -> ir.Model:
    """Return the graph of a model: functions inlined, constants folded, float32.

    ``folder`` has its external data; with ``upgrade`` an opset before `OPSET` is converted if
    possible.

    Raises:
        InputError: The model cannot be made elastic.
    """
    if proto.graph.sparse_initializer:
        raise InputError("the model has sparse tensors; export it with dense ones")
    check_ends(proto.graph)
    try:
        model = ir.from_proto(proto)
        if folder is not None:
            ir.external_data.set_base_dir(model.graph, folder)
        inline_functions(model)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.domain == "ai.onnx":
                node.domain = ""
        if "ai.onnx" in model.graph.opset_imports:
            model.graph.opset_imports[""] = model.graph.opset_imports.pop("ai.onnx")
        check_operators(model)
        lift_constants(model)
        model.graph.sort()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the model is not valid ONNX: {_line(error)}; check it with onnx.checker and export "
            "it again"
        ) from error
    if upgrade and model.graph.opset_imports.get("", OPSET) < OPSET:
        model = upgraded(model) or model
    check_opset(model)
    check_weights(model)
    to_float32(model)
    drop_idle_nodes(model)
    fold_constants(model)
    return model


def without_sequences(model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Replace sequences of tensors by their tensors, for shapes of the inputs, in place.

    Raises:
        InputError: There are sequences whose length depends on data.
        ShapeError: A node refuses the shapes.
    """
    if has_sequences(model.graph):
        replacement = SequenceReplacement(model)
        decide_branches(model, [inputs], replacement)
        replacement.finish()
    check_sequences(model)


def fold(model: ir.Model, inputs: Sequence[Mapping[str, tuple[int, ...]]]) -> list[Trace]:
    """Fold what static axes decide, for several sets of shapes of the inputs, in place.

    Raises:
        InputError: Control flow is left.
        ShapeError: A node refuses the shapes.
    """
    traces = decide_branches(model, inputs)
    if _state_types(model, traces[0]):
        fold_constants(model)
        traces = decide_branches(model, inputs)
    for _ in range(_ROUNDS):
        changed = fold_sizes(model.graph, traces)
        if not (fold_constants(model) or changed):
            break
        traces = decide_branches(model, inputs)
    check_branches(model)
    _drop_casts(model, traces[0])
    drop_idle_nodes(model)
    return traces


def decide_branches(
    model: ir.Model,
    inputs: Sequence[Mapping[str, tuple[int, ...]]],
    before: Callable[[ir.Node, list[Trace]], Sequence[ir.Node]] | None = None,
) -> list[Trace]:
    """Trace a graph; conditions that are the same in all traces are replaced by their branch."""
    while True:
        try:
            return trace(model, inputs, before)
        except KnownBranch as known:
            inline_branch(model, known.node, condition=known.condition)
            fold_constants(model)


def finish(model: ir.Model, traces: Sequence[Trace]) -> None:
    """Give each use of a weight its own, fold batch norms and scatters, and name all nodes."""
    simplify_scatters(model.graph, traces)
    unshare(model.graph)
    fold_norms(model.graph, traces)
    drop_idle_nodes(model)
    unshare(model.graph)
    model.graph.sort()
    name_nodes(model.graph)


def _state_types(model: ir.Model, found: Trace) -> bool:
    """Turn casts to the type of another value into casts to that type; return if there were any.

    What is cast so depends on that value no more, and can be a constant.
    """
    casts = [node for node in model.graph if node.op_type == "CastLike"]
    for node in casts:
        kind = found.types.get(str(node.inputs[1].name)) if node.inputs[1] is not None else None
        if kind is None:
            continue
        cast = ir.node("Cast", [node.inputs[0]], attributes={"to": kind}, name=node.name)
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [cast], node.outputs, cast.outputs
        )
    return bool(casts)


def _drop_casts(model: ir.Model, found: Trace) -> None:
    """Drop casts to the type that a value has."""
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        if source is not None and found.types.get(str(source.name)) == node.attributes["to"].value:
            make_identity(model.graph, node)


def _line(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300]
