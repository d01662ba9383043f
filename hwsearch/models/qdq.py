"""Static int8 models, written from the ranges of their activations.

QuantizeLinear and DequantizeLinear nodes are placed, named and filled as by
`onnxruntime.quantization.quantize_static` (QDQ, weights per channel): the files are equal.
Writing them from ranges takes a small part of its time, and any set of nodes can stay float32.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hwsearch.models.int8_numbers import (
    Int8Constants,
    Scales,
    activation_scales,
    bias_integers,
    widened,
)
from hwsearch.models.onnx_file import emptied, inferred_values
from hwsearch.models.qdq_plan import QUANTIZED, Plan, read_by
from hwsearch.quantization import Quantization

Ranges = Mapping[str, tuple[float, float]]


def quantizable_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that int8 has a rule for, in their order."""
    return [node.name for node in model.graph.node if node.op_type in QUANTIZED]


def activations(model: onnx.ModelProto) -> list[str]:
    """Return the float32 values that nodes with a rule for int8 read or make."""
    values = {v.name: v.type.tensor_type.elem_type for v in inferred_values(model, batch=1)}
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in QUANTIZED]
    touched = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))
    floats = (name for name in touched if values.get(name) == TensorProto.FLOAT)
    return [name for name in floats if name not in constants]


class Int8Writer:
    """Writes a float32 model with any of its nodes in int8; constants are quantised once."""

    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Ranges,
        how: Quantization,
        biases: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """Keep a model, which must not change afterwards.

        Args:
            model: Its weights are initialisers; its opset is 13 or later.
            ranges: Activation -> its smallest and largest value, for all of `activations`.
            how: Types of activations and weights.
            biases: Other values of biases, where these are quantised: see
                `hwsearch.models.bias_correction`.
        """
        self._model, self._ranges, self._how = model, ranges, how
        self._constants = Int8Constants(model, how, biases)

    def write(self, nodes: Collection[str] | None = None) -> onnx.ModelProto:
        """Return a copy of the model with nodes in int8, by default all `quantizable_nodes`.

        Raises:
            EvaluationError: The range of an activation is not finite.
        """
        chosen = [
            node
            for node in self._model.graph.node
            if node.op_type in QUANTIZED and (nodes is None or node.name in nodes)
        ]
        plan = Plan(self._model, self._ranges, symmetric=self._how.activations == "int8")
        for node in chosen:
            plan.add(node)
        ranges = _adjusted(self._ranges, plan, chosen)
        return _Copy(self._model, plan, _Numbers(plan, self._constants, ranges, self._how)).made


def _adjusted(ranges: Ranges, plan: Plan, nodes: Collection[onnx.NodeProto]) -> Ranges:
    """Return ranges where what only a Relu or Clip reads has the range of what that makes."""
    found = dict(ranges)
    for node in nodes:
        if node.op_type == "Softmax":
            found[node.output[0]] = (0.0, 1.0)
        elif node.op_type in ("Clip", "Relu"):
            before, after = node.input[0], node.output[0]
            if plan.feeds_one(before) and before in found and after in found:
                found[before] = found[after]
    return found


class _Numbers:
    """Scales of the tensors of a plan."""

    def __init__(
        self, plan: Plan, constants: Int8Constants, ranges: Ranges, how: Quantization
    ) -> None:
        self.constants, self._plan, self._ranges, self._how = constants, plan, ranges, how
        self._scales: dict[str, Scales] = {}
        for bias in plan.biases.values():
            weight, data = self.of(bias.weight), self.of(bias.data)
            if plan.tensors[bias.weight].weight:
                values = constants.array(bias.constant)
                self._scales[bias.weight] = widened(weight, data, values)

    def of(self, name: str) -> Scales:
        """Return scales and zero points of a tensor."""
        name = self._plan.source(name)
        if name not in self._scales:
            marked = self._plan.tensors[name]
            if name in self._plan.constants:
                found = self.constants.scales(name, weight=marked.weight, axis=marked.axis)
            else:
                found = activation_scales(name, self._ranges[name], self._how)
            self._scales[name] = found
        return self._scales[name]


class _Copy:
    """A quantised copy, written in the order of the given graph."""

    def __init__(self, model: onnx.ModelProto, plan: Plan, numbers: _Numbers) -> None:
        self._plan, self._numbers, graph = plan, numbers, model.graph
        self.made = emptied(model)
        self._graph = self.made.graph
        self._outputs = {value.name for value in graph.output}
        self._written: set[str] = set()
        for value in graph.input:
            self._quantise_after(value.name)
        for node in graph.node:
            if node.output[0] not in plan.removed:
                self._rewrite(node)
        read = {name for node in self._graph.node for name in read_by(node)} | self._outputs
        for node in [node for node in self._graph.node if node.op_type == "Constant"]:
            if node.output[0] not in read:  # bounds of a Clip that is gone
                self._graph.node.remove(node)
        kept = read - self._written
        for tensor in graph.initializer:
            if tensor.name in kept:
                self._graph.initializer.add().CopyFrom(tensor)  # a third of the time of extend

    def _rewrite(self, node: onnx.NodeProto) -> None:
        inputs = list(node.input)
        if (bias := self._plan.bias_of.get(node.output[0])) is not None:
            inputs[2] = bias
        inputs = [self._read_name(name) for name in inputs]
        outputs = [self._plan.made_name(name) for name in node.output]
        new = self._graph.node.add()
        new.CopyFrom(node)
        new.input[:], new.output[:] = inputs, [self._unquantised(name) for name in outputs]
        for attribute in new.attribute:
            if attribute.name == "beta" and bias is not None:
                attribute.f = 1.0  # it is part of the bias's scale
        for name in outputs:
            self._quantise_after(name)

    def _read_name(self, name: str) -> str:
        """Return what a node reads in the place of a tensor; constants are written before it."""
        if name in self._plan.biases and name not in self._written:
            self._write_bias(name)
        if name not in self._plan.tensors:
            return name
        if name in self._plan.constants:
            self._write_constant(name)
        return name if name in self._outputs else f"{name}_DequantizeLinear_Output"

    def _unquantised(self, name: str) -> str:
        """Return what a node makes in the place of a tensor: an output of the model is behind."""
        quantised = name in self._plan.tensors and name in self._outputs
        return f"{name}_QuantizeLinear_Input" if quantised else name

    def _quantise_after(self, name: str) -> None:
        if name not in self._plan.tensors or name in self._plan.constants:
            return
        scales = self._write_scales(self._plan.source(name))
        integers = f"{name}_QuantizeLinear_Output"
        read, back = self._unquantised(name), self._read_name(name)
        self._add_node("QuantizeLinear", [read, *scales], integers, name)
        self._add_node("DequantizeLinear", [integers, *scales], back, name)

    def _write_scales(self, name: str) -> tuple[str, str]:
        names = f"{name}_scale", f"{name}_zero_point"
        if names[0] not in self._written:
            scales, points = self._numbers.of(name)
            self._add_constant(names[0], scales)
            self._add_constant(names[1], points)
        return names

    def _write_constant(self, name: str) -> None:
        written = f"{name}_quantized"
        if written in self._written:
            return
        names, axis = self._write_scales(name), self._plan.tensors[name].axis
        scales = self._numbers.of(name)
        self._add_constant(written, self._numbers.constants.integers(name, scales, axis))
        output = f"{name}_DequantizeLinear_Output"
        self._add_node("DequantizeLinear", [written, *names], output, name, axis)

    def _write_bias(self, name: str) -> None:
        bias, constants = self._plan.biases[name], self._numbers.constants
        factor = np.float32(bias.beta or 1)
        scales = self._numbers.of(bias.data)[0] * self._numbers.of(bias.weight)[0] * factor
        values = constants.array(bias.constant) * np.float32(bias.beta != 0)
        names = f"{name}_quantized", f"{name}_quantized_scale", f"{name}_quantized_zero_point"
        self._add_constant(names[0], bias_integers(values, scales))
        self._add_constant(names[1], scales.reshape(-1))
        self._add_constant(names[2], np.zeros(scales.shape if scales.size > 1 else (), np.int32))
        axis = 0 if scales.size > 1 else None
        self._add_node("DequantizeLinear", list(names), name, name, axis)
        self._written.add(name)

    def _add_constant(self, name: str, values: NDArray[np.generic]) -> None:
        self._written.add(name)
        tensor = self._graph.initializer.add()
        tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor.dims.extend(values.shape)
        tensor.raw_data = values.tobytes()

    def _add_node(
        self, kind: str, inputs: list[str], output: str, tensor: str, axis: int | None = None
    ) -> None:
        node = self._graph.node.add()
        node.op_type, node.name = kind, f"{tensor}_{kind}"
        node.input.extend(inputs)
        node.output.append(output)
        if axis is not None:
            node.attribute.add(name="axis", type=onnx.AttributeProto.INT, i=axis)
