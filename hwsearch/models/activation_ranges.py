"""Ranges of activations on samples, which int8 scales follow from."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hwsearch.errors import EvaluationError
from hwsearch.models.execution import Session

_SUFFIXES = {"ReduceMin": "/smallest", "ReduceMax": "/largest"}


def activation_ranges(
    model: onnx.ModelProto, names: Collection[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return the smallest and largest value of activations, and the number of samples.

    Args:
        model: A float32 model.
        names: Float32 inputs, outputs and values between nodes.
        batches: Inputs by name; one batch is held at a time.

    Raises:
        EvaluationError: There are no samples, or ONNX Runtime refuses the model or a batch.
    """
    # Values of nodes that an optimiser joins differ in their last bits, and so would scales.
    session = Session(_with_extremes(model, names), optimised=False)
    low, high, count = np.full(len(names), np.inf), np.full(len(names), -np.inf), 0
    for batch in batches:
        found = np.array(list(session(batch).values())).reshape(2, -1)
        low, high = np.minimum(low, found[0]), np.maximum(high, found[1])
        count += len(next(iter(batch.values())))
    if not count:
        raise EvaluationError("there are no samples to calibrate int8 ranges with")
    return dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True)), count


def _with_extremes(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a model whose outputs are the smallest values of activations, then the largest."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.output[:]
    for kind, suffix in _SUFFIXES.items():
        for name in names:
            node = helper.make_node(kind, [name], [name + suffix], name + suffix, keepdims=0)
            result.graph.node.append(node)
            value = helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, [])
            result.graph.output.append(value)
    return result
