"""Dynamic int8 models: weights of matrix products in int8, activations quantised at run time.

Nodes are placed, named and filled as by `onnxruntime.quantization.quantize_dynamic` (weights per
channel), so that ONNX Runtime fuses them to the same kernels. Convolutions are left alone:
ConvInteger takes longer than Conv in float32.
"""

from collections.abc import Collection
from functools import partial

import onnx
from onnx import TensorProto, numpy_helper

from hwsearch.models.int8_numbers import quantised, weight_scales
from hwsearch.models.onnx_file import check_opset
from hwsearch.models.weighted_products import Product, ProductCopy, WeightedProducts
from hwsearch.quantization import Quantization

_OPSET = 11  # the first one with DynamicQuantizeLinear


class DynamicInt8Writer:
    """Writes a model with any of its products in dynamic int8; weights are quantised once.

    Its other nodes may be quantised already.
    """

    def __init__(self, model: onnx.ModelProto, how: Quantization) -> None:
        """Keep a model, which must not change afterwards.

        ``how`` is about the weights: activations are uint8 on every processor.

        Raises:
            EvaluationError: The model's opset is before 11.
        """
        check_opset(model, _OPSET, "dynamic int8 begins")
        self._how, self._products = how, WeightedProducts(model)

    def write(self, nodes: Collection[str] | None = None) -> onnx.ModelProto:
        """Return a copy of the model with nodes in int8, by default all products.

        Raises:
            EvaluationError: A weight has values that are not finite.
        """
        return self._products.replaced(nodes, self._quantised, _write)

    def _quantised(self, product: Product) -> list[TensorProto]:
        """Return the integers of a matrix (K, N), their scales (N,) and zero points (N,)."""
        array = numpy_helper.to_array(self._products.constants[product.weight])
        axis = 0 if product.transposed else 1
        scales = weight_scales(product.weight, array, axis, self._how)
        found = quantised(array, scales, axis)
        named = {
            "quantized": found.T if product.transposed else found,
            "scale": scales[0],
            "zero_point": scales[1],
        }
        return [numpy_helper.from_array(a, f"{product.matrix}_{n}") for n, a in named.items()]


def _write(copy: ProductCopy, product: Product, weights: list[str], output: str) -> None:
    name, data = f"{product.name}_quant", product.node.input[0]
    inputs, scale, zero_point = copy.once(data, partial(_quantise, copy, data))
    weight, weight_scale, weight_zero_point = weights
    sums = copy.value(f"{output}_output_quantized")
    cast = copy.value(f"{output}_output_quantized_cast_output")
    factors = copy.value(f"{name}_scales_mul:0")
    copy.add_node("MatMulInteger", [inputs, weight, zero_point, weight_zero_point], [sums], name)
    cast_name = f"{output}_output_quantized_cast"
    copy.add_node("Cast", [sums], [cast], cast_name, to=TensorProto.FLOAT)
    copy.add_node("Mul", [scale, weight_scale], [factors], f"{name}_scales_mul")
    copy.add_node("Mul", [cast, factors], [output], f"{name}_output_scale_mul")


def _quantise(copy: ProductCopy, data: str) -> list[str]:
    """Write the quantisation of an activation; return its integers, scale and zero point."""
    made = [copy.value(f"{data}_{part}") for part in ("quantized", "scale", "zero_point")]
    copy.add_node("DynamicQuantizeLinear", [data], made, f"{data}_QuantizeLinear")
    return made
