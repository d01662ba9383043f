"""Reading of trained ONNX models into canonical graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.elastic.analysis.sample_axes import (
    BATCH,
    InputAxes,
    candidate_sizes,
    input_axes,
    shapes_of,
    unseen_sizes,
)
from hwsearch.elastic.canonical.batch import free_batch
from hwsearch.elastic.canonical.cleaning import OPSET
from hwsearch.elastic.canonical.duplicates import without_duplicates
from hwsearch.elastic.canonical.feeding import Feed
from hwsearch.elastic.canonical.pipeline import (
    decide_branches,
    finish,
    fold,
    prepared,
    without_sequences,
)
from hwsearch.elastic.canonical.result import graph_of
from hwsearch.elastic.canonical.shapes import ShapeError, trace
from hwsearch.elastic.canonical.variants import pinned, takes, working_sizes
from hwsearch.elastic.canonical.verification import Given, first_wrong, verify, verify_before
from hwsearch.elastic.graph import Graph
from hwsearch.elastic.model_file import proto_digest, read_file, with_external_data
from hwsearch.errors import EvaluationError, InputError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Sizes: TypeAlias = dict[str, int]


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
    source: Path | onnx.ModelProto,
    sample_shapes: Shapes | None = None,
    samples: Mapping[str, NDArray[Any]] | None = None,
) -> Graph:
    """Read a trained model and bring it to canonical form.

    The canonical model agrees with the given one within 1e-5 on the samples, or on random inputs.
    A batch that the file has fixed becomes symbolic where the graph allows it.

    Args:
        source: File, whose external data lies beside it, or model.
        sample_shapes: Input -> its shape for one sample, with or without the batch, where an axis
            is symbolic; by default that of the samples, or else sizes that the model runs with,
            such as 224 pixels or 32 tokens.
        samples: Input -> samples; their first axis counts them.

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
    stated = sample_shapes or {n: (1, *array.shape[1:]) for n, array in (samples or {}).items()}
    inputs = input_axes(model, stated)
    if not inputs:
        raise InputError("the model has no inputs; export it with them")
    given, feed = Given(source), Feed(samples)
    sizes = _sample_sizes(given, model, inputs, stated, feed)
    reasons: list[str] = []
    is_symbolic = any(each.dims[:1] == (BATCH,) for each in inputs)
    for free, upgrade in ((True, True), (True, False), (False, True), (False, False)):
        if (not upgrade and not read.is_old) or not (free or is_symbolic):
            continue
        try:
            return _for_all_sizes(
                _Attempt(read, given, feed, inputs, sizes, free=free, upgrade=upgrade),
                None if reasons else model,
            )
        except ShapeError as error:
            reasons.append(str(error))
    why = "; ".join(dict.fromkeys(reasons))
    if not is_symbolic:
        first = max((shape[0] for shape in shapes_of(inputs, sizes).values() if shape), default=1)
        raise InputError(
            f"the model's batch is fixed at {first}, and subnets are scored in batches: {why}; "
            "export it with a symbolic batch (torch.onnx.export: dynamic_axes or dynamic_shapes), "
            "the first axis of all inputs and outputs"
        )
    raise InputError(
        f"the model could not be brought to canonical form: {why}; export it with a symbolic "
        "batch and fixed other axes, or simplify it before"
    )


def _sample_sizes(
    given: Given, model: ir.Model, inputs: Sequence[InputAxes], stated: Shapes, feed: Feed
) -> dict[str, int]:
    """Return the first sizes of symbolic axes that the model runs with, and settle on inputs."""
    failed, what = "", "the given" if feed.samples else "random"
    for sizes in candidate_sizes(inputs, stated, _channels(model, inputs)):
        shapes = shapes_of(inputs, sizes)
        try:
            feed.settle(given, model, shapes)
        except EvaluationError as error:
            failed = failed or f"inputs of shapes {shapes}: {error}"
        else:
            return sizes
    raise InputError(
        f"the model does not run with {what} {failed}; give samples of its inputs, of the shapes "
        "that it takes"
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


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way to read a model: with its batch made symbolic, and its opset converted, or not.

    Attributes:
        sizes: Of symbolic axes, of one sample.
        more: Further sizes that the graph is traced for.
    """

    read: _Source
    given: Given
    feed: Feed
    inputs: Sequence[InputAxes]
    sizes: Mapping[str, int]
    free: bool
    upgrade: bool
    more: tuple[Sizes, ...] = ()


def _for_all_sizes(attempt: _Attempt, model: ir.Model | None) -> Graph:
    """Return the canonical graph, right for sizes that it was not traced for, too.

    A size for which it differs from the given model is traced as well; symbolic axes whose sizes
    it still cannot follow are fixed. ``model`` is what the attempt begins with, if it is ready.

    Raises:
        ShapeError: It cannot be done.
    """
    tried: list[Sizes] = []
    while True:
        graph, wrong = _canonical(replace(attempt, more=tuple(tried)), model)
        model = None  # it has been changed
        if wrong is None:
            return graph
        if wrong in tried:
            break
        tried.append(wrong)
    sizes = {name: size for name, size in attempt.sizes.items() if name != BATCH}
    fixed, note = pinned(attempt.inputs, sizes, "the graph is right for no other size")
    graph, _ = _canonical(replace(attempt, inputs=fixed), None)
    return replace(graph, notes=(*note, *graph.notes))


def _canonical(attempt: _Attempt, model: ir.Model | None) -> tuple[Graph, Sizes | None]:
    """Return the canonical graph, and sizes for which it is wrong.

    Raises:
        ShapeError: It could not be done, or the result differs from the given model.
    """
    given, feed = attempt.given, attempt.feed
    inputs, sizes = list(attempt.inputs), dict(attempt.sizes)
    if model is None:
        model = attempt.read.prepared(upgrade=attempt.upgrade)
    sample = shapes_of(inputs, sizes)
    without_sequences(model, sample)
    is_symbolic = any(each.dims[:1] == (BATCH,) for each in inputs)
    takes_batches = is_symbolic and takes(model, inputs, {**sizes, BATCH: 2})
    if attempt.free and not takes_batches:
        inputs, sizes = _freed(model, inputs, sizes)
    inputs, variants, notes = working_sizes(model, inputs, sizes, attempt.more)
    shapes = [shapes_of(inputs, each) for each in variants]
    finish(model, fold(model, shapes))
    traces = trace(model, shapes)
    graph = graph_of(model, inputs, variants, traces, attempt.read.digest, notes)
    unstable = verify(given, model, graph, sample, feed, whole=takes_batches)
    if unstable:
        verify_before(attempt.read.prepared(), model, graph, feed)
        notes.append(
            f"outputs {', '.join(unstable)} depend on the order of almost equal numbers: what "
            "they are computed from was compared with the given model instead"
        )
    if feed.unmoved:
        notes.append(
            f"outputs {', '.join(feed.unmoved)} are the same for all inputs that were tried, so "
            "that subnets cannot be told from the model by them"
        )
    unseen = unseen_sizes(inputs, variants)
    batch = {name: shape[:1] for name, shape in sample.items()}
    tried = [{n: (*batch[n], *s[1:]) for n, s in shapes_of(inputs, e).items()} for e in unseen]
    wrong = first_wrong(given, model, graph, tried, feed)
    return replace(graph, notes=tuple(notes)), None if wrong is None else unseen[wrong]


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
