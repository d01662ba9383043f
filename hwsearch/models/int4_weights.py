"""Models whose matrices have 4 bits: smaller files, computed in float32.

MatMulNBits of ONNX Runtime (domain ``com.microsoft``) takes them. Blocks of 32 values along K have
a scale and a zero point, rounded to nearest, as `onnxruntime.quantization.matmul_nbits_quantizer`
makes them by default.
"""

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from hwsearch.errors import EvaluationError
from hwsearch.models.onnx_file import check_opset
from hwsearch.models.weighted_products import Product, ProductCopy, WeightedProducts

_DOMAIN = "com.microsoft"
_OPSET = 7  # the first one whose Add broadcasts, as Gemm does
_BLOCK = 32  # values along K
_LARGEST = 15
_UPPER = np.uint8(16)  # of the upper half of a byte
_TINY = np.finfo(np.float32).tiny
Bytes = NDArray[np.uint8]


class Int4Writer:
    """Writes a model with the weights of any of its products in 4 bits; each is quantised once.

    Its other nodes may be quantised already.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Keep a model, which must not change afterwards.

        Raises:
            EvaluationError: The model's opset is before 7.
        """
        check_opset(model, _OPSET, "weights of 4 bits begin")
        self._products = WeightedProducts(model)

    def write(self, nodes: Collection[str] | None = None) -> onnx.ModelProto:
        """Return a copy of the model with nodes in 4 bits, by default all products.

        Raises:
            EvaluationError: A weight has values that are not finite.
        """
        made = self._products.replaced(nodes, self._quantised, self._write)
        used = any(node.domain == _DOMAIN for node in made.graph.node)
        if used and _DOMAIN not in {opset.domain for opset in made.opset_import}:
            made.opset_import.add(domain=_DOMAIN, version=1)
        return made

    def _quantised(self, product: Product) -> list[TensorProto]:
        array = numpy_helper.to_array(self._products.constants[product.weight])
        packed, scales, points = four_bits(
            product.weight, array.T if product.transposed else array
        )
        return [
            numpy_helper.from_array(packed, f"{product.matrix}_Q4"),
            numpy_helper.from_array(scales, f"{product.matrix}_scales"),
            numpy_helper.from_array(points, f"{product.matrix}_zero_points"),
        ]

    def _write(self, copy: ProductCopy, product: Product, weights: list[str], output: str) -> None:
        dims = self._products.constants[product.weight].dims
        k, n = reversed(dims) if product.transposed else dims
        copy.add_node(
            "MatMulNBits",
            [product.node.input[0], *weights],
            [output],
            f"{product.name}_Q4",
            domain=_DOMAIN,
            K=k,
            N=n,
            bits=4,
            block_size=_BLOCK,
        )


def four_bits(name: str, matrix: NDArray[np.float32]) -> tuple[Bytes, NDArray[np.float32], Bytes]:
    """Return a matrix (K, N) in 4 bits, in blocks of 32 along K whose last one may be shorter.

    The name is for messages. A byte holds two values, the earlier in its lower half.

    Returns:
        Values (N, blocks, 16), scales (N, blocks) and zero points (N, blocks / 2 rounded up).

    Raises:
        EvaluationError: A value is not finite.
    """
    k, n = matrix.shape
    blocks = -(-k // _BLOCK)
    padded = np.zeros((blocks * _BLOCK, n), np.float32)
    padded[:k] = matrix
    values = padded.reshape(blocks, _BLOCK, n)
    low, high = values.min(1, initial=0), values.max(1, initial=0)
    with np.errstate(over="ignore"):
        scales = (high - low) / np.float32(_LARGEST)
    if not np.isfinite(scales).all():
        raise EvaluationError(
            f"weight {name} has values that are not finite or too large, which no scale of 4 bits "
            "holds; this subnet needs fp32"
        )
    usable = scales >= _TINY
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=usable)
    points = _rounded(np.divide(-low, scales, out=np.zeros_like(low), where=usable))
    values *= inverse[:, None]
    values += points[:, None]
    found = _rounded(values)
    found.reshape(padded.shape)[k:] = 0
    if blocks % 2:
        points = np.vstack((points, np.zeros_like(points[:1])))
    packed = found[:, ::2] + found[:, 1::2] * _UPPER
    return packed.transpose(2, 0, 1), scales.T, (points[::2] + points[1::2] * _UPPER).T


def _rounded(values: NDArray[np.float32]) -> Bytes:
    """Return the nearest integers from 0 to 15; halves are rounded up, and not to even."""
    values = values.clip(0, _LARGEST)
    found = np.floor(values)
    values -= found
    return found.astype(np.uint8) + (values >= np.float32(0.5))
