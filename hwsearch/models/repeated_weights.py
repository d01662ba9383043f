"""Models for timing only: their weights repeat one short random pattern.

A runtime takes the same time for any weights as long as no activation is infinite, NaN or
denormal. Weights are therefore scaled by their fan-in, so that activations do not grow from layer
to layer, and biases give every layer a nonzero input. The time of int8 arithmetic does not depend
on the ranges of activations, so that one random sample calibrates an int8 model.
"""

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.convert import Converter, blocks_of
from hwsearch.models.export import to_onnx
from hwsearch.models.onnx_file import read_metadata, write_metadata
from hwsearch.models.qdq import activations
from hwsearch.models.quantize import RANGES, Calibration, state
from hwsearch.precision import WHOLE
from hwsearch.quantization import Quantization
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

# A prime, so that neighbouring channels differ; few numbers, as each tensor holds them once
# uncompressed and as deflate writes a near repetition in fewer bits than a far one.
_LENGTH = 31
_BIAS = 0.1
_INT_SCALE = 20  # of the pattern, so that its integers have 7 bits
_NORMS = tuple(f"{kind}Normalization" for kind in ("Batch", "Group", "Instance", "Layer"))
_LEARNED = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "Gather": (0,),
    "DequantizeLinear": (0,),
    "Add": (0, 1),
    **dict.fromkeys(_NORMS, (1, 2, 3, 4)),
}
_LEAST = 8  # a smaller tensor may be a constant, such as an image size
_KEPT = ("architecture", "key", "precision", "input")


def timing_model(
    net: Supernet, arch: Architecture, precision: str, quantization: Quantization
) -> onnx.ModelProto:
    """Return the model of an architecture, for timing only, as a device of a precision takes it.

    Choices of precision go before that of the device. ``quantization`` is that of int8. Ranges of
    activations are those of one random sample.
    """
    model = with_repeated_weights(to_onnx(net, arch))

    def calibrate(given: onnx.ModelProto) -> Calibration:
        sample = probe_inputs(net.input_spec(arch).inputs, samples=1)
        ranges, _ = activation_ranges(given, activations(given), [sample])
        return Calibration(ranges=ranges, digest="random")

    convert = Converter(quantization=quantization, calibrate=calibrate)
    made = convert(model, net.precisions(arch) or {WHOLE: precision}, blocks_of(net, model))
    state(made, **{RANGES: None})  # of no use, and they compress badly
    return made


def with_repeated_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the same graph whose weights compress to almost nothing."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    done: set[str] = set()
    for node in result.graph.node:
        for position in _LEARNED.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            if name in tensors and name not in done:
                done.add(name)
                _fill(tensors[name], node, position)
    metadata = read_metadata(model)
    kept = {name: metadata[name] for name in _KEPT if name in metadata}
    write_metadata(result, {**kept, "weights": "a repeated random tile"})
    return result


def _fill(tensor: onnx.TensorProto, node: onnx.NodeProto, position: int) -> None:
    shape, size = tuple(tensor.dims), math.prod(tensor.dims)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    quantized = node.op_type == "DequantizeLinear"
    if (dtype.kind == "f") == quantized or size < _LEAST:
        return
    if quantized:
        values = np.resize(np.rint(_pattern() * _INT_SCALE), size)
    elif node.op_type in _NORMS and position in (1, 4):
        values = np.ones(size)  # scales and variances
    else:
        values = np.resize(_pattern() * _scale(node, shape), size)
    filled = numpy_helper.from_array(values.astype(dtype).reshape(shape), tensor.name)
    tensor.CopyFrom(filled)


def _scale(node: onnx.NodeProto, shape: tuple[int, ...]) -> float:
    if node.op_type == "Add" or len(shape) < 2:
        return _BIAS
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        fan_in = shape[1] if transposed else shape[0]
    elif node.op_type == "MatMul":
        fan_in = shape[-2]
    elif node.op_type == "ConvTranspose":
        fan_in = shape[0] * math.prod(shape[2:])
    else:
        fan_in = math.prod(shape[1:])
    # Activations take on the pattern's period; repetitions in a wider fan-in add up in phase.
    return math.sqrt(min(fan_in, _LENGTH)) / fan_in


def _pattern() -> NDArray[np.float64]:
    values = np.random.default_rng(0).standard_normal(_LENGTH)
    values -= values.mean()
    return np.asarray(values / np.sqrt(np.mean(values**2)))
