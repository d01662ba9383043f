"""The canonical graph as plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from hwsearch.elastic.analysis.sample_axes import BATCH, InputAxes, random_inputs
from hwsearch.elastic.canonical.constants import origin_of
from hwsearch.elastic.canonical.shapes import Trace
from hwsearch.elastic.graph import Graph, Origin
from hwsearch.models.execution import Session

_LEAST_IR = 8
Sizes = Mapping[str, int]


def graph_of(
    model: ir.Model,
    inputs: Sequence[InputAxes],
    sizes: Sequence[Sizes],
    traces: Sequence[Trace],
    digest: str,
    notes: Sequence[str],
) -> Graph:
    """Return the graph of a canonical model.

    ``traces`` are those of the finished model for ``sizes`` of the symbolic axes, the first of
    which are those of one sample.
    """
    proto = _proto(model, inputs, sizes, traces)
    weights: dict[str, NDArray[Any]] = {}
    origins: dict[str, Origin] = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            continue
        weights[name] = _frozen(value.const_value.numpy())
        origin = origin_of(value)
        if origin is not None:
            origins[name] = origin
    return Graph(
        proto=proto,
        weights=weights,
        origins=origins,
        shapes=_shapes(model, proto, weights, traces[0]),
        digest=digest,
        notes=tuple(notes),
    )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in memory that cannot be written; copies of a weight share it."""
    kept = np.array(array) if isinstance(array, np.memmap) else array.view()
    kept.flags.writeable = False
    return kept


def _proto(
    model: ir.Model, inputs: Sequence[InputAxes], sizes: Sequence[Sizes], traces: Sequence[Trace]
) -> onnx.ModelProto:
    graph = onnx.GraphProto(name=model.graph.name or "model")
    graph.node.extend(ir.to_proto(node) for node in model.graph)
    for each in inputs:
        element = traces[0].types[each.name]
        graph.input.append(helper.make_tensor_value_info(each.name, element, each.dims))
    for value in model.graph.outputs:
        name = str(value.name)
        element = traces[0].types.get(name, onnx.TensorProto.FLOAT)
        graph.output.append(
            helper.make_tensor_value_info(name, element, _output_dims(name, sizes, traces))
        )
    proto = onnx.ModelProto(ir_version=max(model.ir_version, _LEAST_IR), graph=graph)
    for domain, version in model.opset_imports.items():
        if domain == "":
            proto.opset_import.add(domain=domain, version=version)
    return proto


def _output_dims(
    name: str, sizes: Sequence[Sizes], traces: Sequence[Trace]
) -> list[int | str | None] | None:
    """Return a number for each axis that never changes, else the name of the axis it follows."""
    shapes = [each.shapes.get(name) for each in traces]
    first = shapes[0]
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    dims: list[int | str | None] = []
    for axis in range(len(first)):
        column = [shape[axis] for shape in shapes if shape is not None]
        names = [n for n in sizes[0] if [each[n] for each in sizes] == column]
        if names:
            dims.append(BATCH if BATCH in names and axis == 0 else names[0])
        else:
            dims.append(column[0] if len(set(column)) == 1 else None)
    return dims


def _shapes(
    model: ir.Model, proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], found: Trace
) -> dict[str, tuple[int, ...]]:
    """Return all shapes of one sample; what does not follow from the graph is found by running."""
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    shapes = {str(v.name): found.shape(v) for v in values if v.name}
    unknown = [name for name, shape in shapes.items() if shape is None]
    if unknown:
        given = {str(value.name): shapes[str(value.name)] or () for value in model.graph.inputs}
        arrays = Session(proto, unknown, weights)(random_inputs(model, given))
        shapes |= {name: array.shape for name, array in arrays.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None}
