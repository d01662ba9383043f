"""Biases that make up for the mean error of int8 weights.

The mean of a convolution's outputs in int8 differs from that in float32, by channel, and such
shifts add up over layers. Method: Nagel et al. 2019, "Data-Free Quantization Through Weight
Equalization and Bias Correction", section 4.2; the means of inputs come from samples instead of
batch norms. Errors of layers before are not counted, so that a shift is the same for every set of
nodes in int8.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import EvaluationError
from hwsearch.models.execution import Session
from hwsearch.models.int8_numbers import Int8Constants, dequantised
from hwsearch.models.onnx_file import opset_of
from hwsearch.models.qdq_plan import read_by
from hwsearch.quantization import Quantization

_LINEAR: Final = ("Conv", "ConvTranspose", "Gemm")
_AXES_ARE_INPUTS: Final = 18  # the first opset whose ReduceMean takes axes as an input
Shifts = Mapping[str, NDArray[np.float32]]


def bias_shifts(
    model: onnx.ModelProto, batches: Iterable[Mapping[str, NDArray[Any]]], how: Quantization
) -> dict[str, NDArray[np.float32]]:
    """Return what to add to biases for weights in int8: name of the node -> (channels,).

    A layer is linear, so its mean output is its output for the mean input, padding included: the
    model is run in float32, and its convolutions and Gemm once more for the mean of each batch.
    Layers without a bias have none.

    Args:
        model: A float32 model of opset 13 or later; nodes have unique names.
        batches: Inputs by name; one batch is held at a time. Two batches are enough.
        how: Types of activations and weights.

    Raises:
        EvaluationError: There are no samples, or ONNX Runtime refuses the model or a batch.
    """
    graph = _ErrorGraph(model, how)
    if not graph.shifts:
        return {}
    session = Session(graph.model, list(graph.shifts.values()), optimised=False)
    sums: dict[str, NDArray[np.float64]] = dict.fromkeys(graph.shifts, np.zeros(1))
    count = 0
    for batch in batches:
        found, size = session(batch), len(next(iter(batch.values())))
        for name, value in graph.shifts.items():
            sums[name] = sums[name] + found[value].astype(np.float64) * size
        count += size
    if not count:
        raise EvaluationError("there are no samples to correct biases of int8 with")
    return {name: np.asarray(each / count, np.float32) for name, each in sums.items()}


def corrected_biases(model: onnx.ModelProto, shifts: Shifts) -> dict[str, NDArray[np.float32]]:
    """Return initialiser -> bias with the shift of the node that reads it.

    A bias that several nodes read is not among them: the corrected model has as many parameters.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    reads = Counter(name for node in model.graph.node for name in read_by(node))
    return {
        node.input[2]: (numpy_helper.to_array(tensors[node.input[2]]) + shifts[node.name]).astype(
            np.float32
        )
        for node in model.graph.node
        if node.name in shifts and reads[node.input[2]] == 1
    }


class _ErrorGraph:
    """A float32 model that also computes the mean errors of a batch.

    Attributes:
        model: It has no outputs.
        shifts: Name of a node -> the value with what its outputs lack on average, by channel.
    """

    def __init__(self, model: onnx.ModelProto, how: Quantization) -> None:
        self.model, self.shifts = onnx.ModelProto(), dict[str, str]()
        self.model.CopyFrom(model)
        self._axes_are_inputs = opset_of(model) >= _AXES_ARE_INPUTS
        self._constants, self._means = Int8Constants(model, how), set[str]()
        tensors = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        for node in model.graph.node:
            data, weight, bias = (*node.input, "", "", "")[:3]
            if node.op_type not in _LINEAR or weight not in tensors or data in tensors:
                continue
            beta = next((each.f for each in node.attribute if each.name == "beta"), 1.0)
            if bias in tensors and beta == 1 and len(tensors[bias].dims) == 1:
                self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        data, weight = node.input[:2]
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        array = self._constants.array(weight)
        scales = self._constants.scales(weight, weight=True, axis=axis)
        rounded = dequantised(self._constants.integers(weight, scales, axis), scales, axis)
        if data not in self._means:
            self._means.add(data)
            self._mean(data, f"{data}/mean", [0], keep=True)
        error = self._constant(f"{node.name}/error", array - rounded)
        new = self._node(node.op_type, [f"{data}/mean", error], f"{node.name}/lost")
        new.attribute.extend(node.attribute)
        self.shifts[node.name] = f"{node.name}/shift"
        axes = [0, *range(2, array.ndim)]
        self._mean(f"{node.name}/lost", self.shifts[node.name], axes, keep=False)

    def _mean(self, name: str, output: str, axes: list[int], *, keep: bool) -> None:
        if self._axes_are_inputs:
            given = self._constant(f"{output}/axes", np.array(axes, np.int64))
            node = self._node("ReduceMean", [name, given], output)
        else:
            node = self._node("ReduceMean", [name], output)
            node.attribute.append(helper.make_attribute("axes", axes))
        node.attribute.append(helper.make_attribute("keepdims", int(keep)))

    def _node(self, kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
        node: onnx.NodeProto = self.model.graph.node.add()
        node.CopyFrom(helper.make_node(kind, inputs, [output], output))
        return node

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name
