"""Reading of trained ONNX models into canonical graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from hwsearch.elastic.analysis.sample_axes import (
    BATCH,
    InputAxes,
    candidate_sizes,
    input_axes,
    random_inputs,
    shapes_of,
)
from hwsearch.elastic.canonical.batch import free_batch
from hwsearch.elastic.canonical.cleaning import OPSET
from hwsearch.elastic.canonical.duplicates import without_duplicates
from hwsearch.elastic.canonical.pipeline import decide_branches, finish, fold, prepared
from hwsearch.elastic.canonical.result import graph_of
from hwsearch.elastic.canonical.shapes import ShapeError, trace
from hwsearch.elastic.canonical.variants import takes, working_sizes
from hwsearch.elastic.canonical.verification import Given, verify, verify_before
from hwsearch.elastic.graph import Graph
from hwsearch.elastic.model_file import proto_digest, read_file, with_external_data
from hwsearch.errors import EvaluationError, InputError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A model that was read; ``folder`` has its external data, None for a model in memory."""

    proto: onnx.ModelProto
    folder: Path | None
    digest: str

    def prepared(self, *, upgrade: bool = True) -> ir.Model:
        return prepared(self.proto, self.folder, upgrade=upgrade)

    @property
    def is_old(self) -> bool:
        """Whether its opset is to be converted."""
        domains = ("", "ai.onnx")
        return any(o.version < OPSET for o in self.proto.opset_import if o.domain in domains)


def read_graph(
    source: Path | onnx.ModelProto, sample_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Graph:
    """Read a trained model and bring it to canonical form.

    The canonical model agrees with the given one within 1e-5 on random inputs. A batch that the
    file has fixed becomes symbolic where the graph allows it; what could not be done is in the
    graph's notes.

    Args:
        source: File, whose external data lies beside it, or model.
        sample_shapes: Input -> its shape for one sample, with or without the batch, where an axis
            is symbolic; by default sizes that the model runs with, such as 224 pixels or 32
            tokens.

    Raises:
        InputError: The model cannot be read, or not be made elastic.
    """
    if isinstance(source, onnx.ModelProto):
        folder, proto, digest = None, source, proto_digest(source)
    else:
        source = Path(source)
        folder, (proto, digest) = source.parent, read_file(source)
    unique = without_duplicates(proto)
    if unique is not proto:
        source = unique if folder is None else with_external_data(unique, folder)
    read = _Source(proto=unique, folder=folder, digest=digest)
    model = read.prepared()
    inputs = input_axes(model, sample_shapes)
    if not inputs:
        raise InputError("the model has no inputs; export it with them")
    given = Given(source)
    sizes = _sample_sizes(given, model, inputs, sample_shapes)
    reasons: list[str] = []
    for free, upgrade in ((True, True), (True, False), (False, True), (False, False)):
        if not upgrade and not read.is_old:
            continue
        if reasons:  # the last attempt has changed it
            model = read.prepared(upgrade=upgrade)
        try:
            return _canonical(read, given, model, inputs, sizes, None if free else reasons)
        except ShapeError as error:
            reasons.append(str(error))
    raise InputError(
        f"the model could not be brought to canonical form: {'; '.join(dict.fromkeys(reasons))}; "
        "export it with a symbolic batch and fixed other axes, or simplify it before"
    )


def _sample_sizes(
    given: Given, model: ir.Model, inputs: Sequence[InputAxes], sample_shapes: Shapes | None
) -> dict[str, int]:
    """Return the first sizes of symbolic axes that the model runs with."""
    failed = ""
    for sizes in candidate_sizes(inputs, sample_shapes, _channels(model, inputs)):
        shapes = shapes_of(inputs, sizes)
        try:
            given(random_inputs(model, shapes))
        except EvaluationError as error:
            failed = failed or f"inputs of shapes {shapes}: {error}"
        else:
            return sizes
    raise InputError(
        f"the model does not run with random {failed}; give the shapes of one sample "
        "(sample_shapes)"
    )


def _channels(model: ir.Model, inputs: Sequence[InputAxes]) -> dict[str, int]:
    """Return the symbolic axes whose size the first weight tells."""
    found: dict[str, int] = {}
    for value, axes in zip(model.graph.inputs, inputs, strict=True):
        for node, position in value.uses():
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            if position or weight is None or weight.const_value is None:
                continue
            shape = weight.const_value.shape.numpy()
            axis, size = -1, 0
            if node.op_type == "Conv":
                axis, size = 1, shape[1] * node.attributes.get_int("group", 1)
            elif node.op_type in ("Gemm", "MatMul") and len(shape) == 2:
                size = shape[1 if node.attributes.get_int("transB", 0) else 0]
            dim = axes.dims[axis] if axes.dims else 0
            if size and isinstance(dim, str) and dim != BATCH:
                found[dim] = size
    return found


def _canonical(
    read: _Source,
    given: Given,
    model: ir.Model,
    inputs: Sequence[InputAxes],
    sizes: dict[str, int],
    reasons: Sequence[str] | None,
) -> Graph:
    """Return the canonical graph.

    A fixed batch becomes symbolic, unless there are ``reasons`` why it cannot.

    Raises:
        ShapeError: It could not be done, or the result differs from the given model.
    """
    sample = shapes_of(inputs, sizes)
    was_symbolic = any(each.dims[:1] == (BATCH,) for each in inputs)
    notes = []
    takes_batches = was_symbolic and takes(model, inputs, {**sizes, BATCH: 2})
    if reasons is None and not takes_batches:
        inputs, sizes = _freed(model, inputs, sizes)
    elif not was_symbolic:
        notes.append(_fixed_note(inputs, sizes, reasons or ()))
    inputs, variants, fixed = working_sizes(model, inputs, sizes)
    shapes = [shapes_of(inputs, each) for each in variants]
    finish(model, fold(model, shapes))
    traces = trace(model, shapes)
    graph = graph_of(model, inputs, variants, traces, read.digest, [*notes, *fixed])
    unstable = verify(given, model, graph, sample, shapes, whole=takes_batches)
    if not unstable:
        return graph
    verify_before(read.prepared(), model, graph)
    note = (
        f"outputs {', '.join(unstable)} depend on the order of almost equal numbers: what they "
        "are computed from was compared with the given model instead"
    )
    return replace(graph, notes=(*graph.notes, note))


def _freed(
    model: ir.Model, inputs: Sequence[InputAxes], sizes: Mapping[str, int]
) -> tuple[list[InputAxes], dict[str, int]]:
    shapes = shapes_of(inputs, sizes)
    decide_branches(model, [shapes])
    batch = free_batch(model, shapes)
    freed = [
        replace(axes, dims=(BATCH, *axes.dims[1:])) if shapes[axes.name][:1] == (batch,) else axes
        for axes in inputs
    ]
    return freed, {**sizes, BATCH: 1}


def _fixed_note(
    inputs: Sequence[InputAxes], sizes: Mapping[str, int], reasons: Sequence[str]
) -> str:
    batch = {shape[0] for shape in shapes_of(inputs, sizes).values() if shape}
    why = "; ".join(dict.fromkeys(reasons))
    if 1 not in batch:
        raise InputError(
            f"the model's batch is fixed at {max(batch)}: {why}; export it with a symbolic batch "
            "(torch.onnx.export: dynamic_axes or dynamic_shapes)"
        )
    return f"the batch stays fixed at 1: {why}; export the model with a symbolic batch"
