"""Agreement of models: outputs for seeded inputs, their difference, MACs and parameters.

The outputs for a seeded input are kept in the card as its probe. With it a file can be checked
without data, supernet and PyTorch. They are those of the PyTorch subnet for its float32 file, else
those of the file itself.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from hwsearch.errors import VerificationError
from hwsearch.models.onnx_file import inferred_values, static_shape
from hwsearch.supernets.interface import TensorSpec

BATCH = 2
# Between float32 and PyTorch, and between two runtimes or processors. float16 is rounded in other
# places by each. In int8 a last bit can move an activation by a whole step, which the layers after
# it carry on: ONNX Runtime and OpenVINO differed by up to 6%, two builds of one runtime by 2%.
# bfloat16 keeps 8 bits of each number, and a processor sums products of it in an order of its own.
TOLERANCES = {
    "fp32": 1e-3,
    "fp16": 1e-2,
    "bf16": 5e-2,
    "int4": 1e-2,
    **dict.fromkeys(("int8", "int8-dynamic", "mixed"), 1e-1),
}
TOLERANCE = TOLERANCES["fp32"]
LEARNED_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
PRODUCTS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")


def probe_inputs(
    tensors: Sequence[TensorSpec], seed: int = 0, samples: int = BATCH
) -> dict[str, NDArray[Any]]:
    """Draw samples of every input: standard normal, or integers below the input's bound."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for tensor in tensors:
        shape = (samples, *tensor.shape)
        if np.issubdtype(np.dtype(tensor.dtype), np.integer):
            values: NDArray[Any] = rng.integers(0, tensor.high or 2, size=shape)
        else:
            values = rng.standard_normal(shape)
        drawn[tensor.name] = values.astype(tensor.dtype)
    return drawn


def disagreement(ours: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> float:
    """Return ``max|a - b| / max|b|``, the largest over the outputs; infinite for other shapes."""
    if [a.shape for a in ours] != [b.shape for b in reference]:
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, reference, strict=True):
        difference = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
        largest = float(np.abs(b).max(initial=0.0))
        relative = difference / largest if largest else difference
        # Not finite when either holds NaN, which max() would pass over.
        worst = max(worst, relative) if np.isfinite(relative) else float("inf")
    return worst


def labels_agree(
    ours: NDArray[Any], reference: NDArray[Any], tolerance: float = TOLERANCE
) -> NDArray[np.bool_]:
    """Return for each sample whether both (n, classes) scores have the same label, up to ties.

    ``tolerance`` of a tie is relative to the largest absolute reference score.
    """
    rows = np.arange(len(ours))
    mine, theirs = ours.argmax(axis=1), reference.argmax(axis=1)
    margin = np.abs(reference[rows, theirs] - reference[rows, mine])
    agree: NDArray[np.bool_] = (mine == theirs) | (margin <= tolerance * np.abs(reference).max())
    return agree


def count_macs(model: onnx.ModelProto) -> int:
    """Count the MACs of convolutions and matrix products for one sample."""
    try:
        values = inferred_values(model, 1, strict=True)
    except onnx.shape_inference.InferenceError as error:
        raise VerificationError(f"cannot infer the shapes for one sample: {error}") from error
    shapes = {value.name: static_shape(value) for value in values}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def shape_of(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
        shape = shapes.get(name)
        if shape is None:
            raise VerificationError(f"cannot infer the shape of {name!r}, used by {node.name!r}")
        return shape

    total = 0
    for node in model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        names = (*node.input[:2], node.output[0])
        total += product_macs(node, *(shape_of(node, name) for name in names))
    return total


def product_macs(node: onnx.NodeProto, *shapes: Sequence[int]) -> int:
    """Return the MACs of a convolution or matrix product from shapes of inputs and output.

    An Einsum has MACs if it multiplies two tensors.
    """
    if node.op_type == "Einsum":
        return _einsum_macs(node, *shapes[:-1])
    left, right, result = shapes
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(right[1:])
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return math.prod(result) * left[0 if transposed else -1]


def _einsum_macs(node: onnx.NodeProto, *shapes: Sequence[int]) -> int:
    """Return the product of the sizes of all letters."""
    equation = next(each.s.decode() for each in node.attribute if each.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    letters = [term.replace("...", "") for term in terms]
    if len(terms) != 2 or any(len(set(each)) < len(each) for each in letters):
        return 0
    sizes: dict[str | int, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        covered = len(shape) - len(before) - len(after) if dots else 0
        # Axes of an ellipsis are counted from its end, as broadcasting does.
        for letter, size in zip([*before, *range(-covered, 0), *after], shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def count_params(model: onnx.ModelProto, buffers: Collection[str]) -> int:
    """Count the learned parameters in a model's initialisers, without ``buffers``.

    Floating-point numbers and dequantised integers count; scales and zero points do not.
    """
    learned = {i.name for i in model.graph.initializer if i.data_type in LEARNED_TYPES}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            learned -= set(node.input[1:])
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            learned.add(node.input[0])
    return sum(
        math.prod(initialiser.dims)
        for initialiser in model.graph.initializer
        if initialiser.name in learned and initialiser.name not in buffers
    )
