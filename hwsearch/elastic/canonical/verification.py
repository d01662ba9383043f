"""Verification of a canonical graph against the model that was given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.elastic.analysis.sample_axes import BATCH
from hwsearch.elastic.canonical.agreement import (
    batch_differences,
    differences,
    largest,
    unstable_values,
)
from hwsearch.elastic.canonical.feeding import Feed
from hwsearch.elastic.canonical.float32 import was_half
from hwsearch.elastic.canonical.shapes import ShapeError
from hwsearch.elastic.graph import Graph
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.execution import Session

_TOLERANCE = 1e-5
_HALF_TOLERANCE = 2e-2  # a model in half precision rounds otherwise than in float32
_NOISE = 10  # times the difference that the order of sums makes in the given model itself
Shapes = Mapping[str, tuple[int, ...]]


class Given:
    """The model as it was given, to compare with.

    Raises:
        InputError: ONNX Runtime refuses it.
    """

    def __init__(self, source: Path | onnx.ModelProto) -> None:
        self._source = source
        try:
            self._session = Session(source)
        except EvaluationError as error:
            raise InputError(f"{error}; check the model with onnx.checker") from error

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return its outputs."""
        return self._session(inputs)

    def noise(self, inputs: Mapping[str, NDArray[Any]]) -> float:
        """Return the largest difference that ONNX Runtime's own optimiser makes."""
        plain = Session(self._source, optimised=False)(inputs)
        return max(differences(plain, self(inputs)).values(), default=0.0)


def verify(
    given: Given, model: ir.Model, graph: Graph, sample: Shapes, feed: Feed, *, whole: bool
) -> list[str]:
    """Compare a graph with the given model; return the outputs that cannot be compared.

    These depend on the order of numbers or on chance; see `verify_before`.

    Args:
        given: The model as it was.
        model: The canonical model as a graph of onnx-ir.
        graph: The same.
        sample: Shapes of the inputs that the given model takes.
        feed: Inputs of these shapes.
        whole: Whether the given model takes batches.

    Raises:
        ShapeError: They differ by more than rounding.
    """
    session = Session(graph.proto, weights=graph.weights)
    samples = [feed(model, sample, seed) for seed in (0, 1)]
    batched = [value.name for value in graph.proto.graph.input if _has_batch(value)]
    outputs = [value.name for value in graph.proto.graph.output if _has_batch(value)]
    try:
        if batched:
            found = batch_differences(given, session, samples, batched, outputs, whole=whole)
        else:
            found = largest(*(differences(session(each), given(each)) for each in samples))
    except EvaluationError as error:
        raise ShapeError(str(error)) from error
    tolerance = _HALF_TOLERANCE if was_half(model) else _TOLERANCE
    worse = {name: value for name, value in found.items() if value > tolerance}
    if not worse:
        return []
    unstable, _ = unstable_values(model.graph)
    if unstable.issuperset(worse):
        return list(worse)
    worst = max(worse, key=worse.__getitem__)
    if worse[worst] > _NOISE * given.noise(samples[0]):
        raise ShapeError(f"output {worst!r} differs by {worse[worst]:.1e} from the given model's")
    return []


def first_wrong(
    given: Given, model: ir.Model, graph: Graph, tried: Sequence[Shapes], feed: Feed
) -> int | None:
    """Return the place of the first of several sets of shapes for which a graph is wrong.

    What follows from a size may be the same for all sizes that were traced, and not for others.
    Sizes that the given model refuses say nothing.
    """
    if not tried:
        return None
    session = Session(graph.proto, weights=graph.weights)
    tolerance = _HALF_TOLERANCE if was_half(model) else _TOLERANCE
    unstable, _ = unstable_values(model.graph)
    for place, shapes in enumerate(tried):
        inputs = feed(model, shapes, seed=2)
        try:
            expected = given(inputs)
        except EvaluationError:
            continue
        try:
            found = differences(session(inputs), expected)
        except EvaluationError:
            return place
        worse = max((value for name, value in found.items() if name not in unstable), default=0.0)
        if worse > tolerance and worse > _NOISE * given.noise(inputs):
            return place
    return None


def verify_before(before: ir.Model, model: ir.Model, graph: Graph, feed: Feed) -> None:
    """Compare what a graph computes before order or chance matter with the model before it.

    Raises:
        ShapeError: They differ by more than rounding.
    """
    proto = ir.to_proto(before)
    _, read = unstable_values(model.graph)
    known = {name for node in proto.graph.node for name in node.output}
    names = [name for name in read if name in known]
    if not names:
        return
    shapes = {value.name: graph.shapes[value.name] for value in graph.proto.graph.input}
    inputs = feed(model, shapes)
    expected = Session(proto, names)(inputs)
    found = Session(graph.proto, names, graph.weights)(inputs)
    for name, value in differences(found, expected).items():
        if value > _TOLERANCE:
            raise ShapeError(f"value {name!r} differs by {value:.1e} from the given model's")


def _has_batch(value: onnx.ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return len(dims) > 0 and dims[0].dim_param == BATCH
