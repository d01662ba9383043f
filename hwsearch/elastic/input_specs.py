"""Inputs and outputs of a graph, as the engine describes them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic.graph import Graph
from hwsearch.supernets.interface import InputSpec, TensorSpec


def spec_of_arrays(graph: Graph, batches: Iterable[Mapping[str, NDArray[Any]]]) -> InputSpec:
    """Return the inputs and outputs of a graph that is fed arrays.

    Args:
        graph: Shapes are those that it was analysed at.
        batches: Samples; the values of an integer input are below the bound that they show.
    """
    highest: dict[str, int] = {}
    for batch in batches:
        for name, array in batch.items():
            if np.issubdtype(array.dtype, np.integer) and array.size:
                highest[name] = max(highest.get(name, 0), int(array.max()))
    inputs = []
    for value in graph.proto.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        bound = highest.get(value.name, 0) + 1 if np.issubdtype(kind, np.integer) else None
        shape = graph.shapes[value.name][1:]
        inputs.append(TensorSpec(name=value.name, shape=shape, dtype=kind.name, high=bound))
    return InputSpec(
        inputs=tuple(inputs),
        outputs=tuple(value.name for value in graph.proto.graph.output),
    )
