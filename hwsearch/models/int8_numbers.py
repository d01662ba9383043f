"""Scales, zero points and integers of int8, equal to those of ONNX Runtime's quantiser."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwsearch.errors import EvaluationError
from hwsearch.quantization import Quantization

Floats = NDArray[np.float32]
Integers = NDArray[np.integer]
Scales = tuple[Floats, Integers]  # scales and zero points

_TINY = np.finfo(np.float32).tiny
_INT32 = np.iinfo(np.int32)
_BIAS_SPAN = np.float64(_INT32.max) - np.float64(_INT32.min + 1)
_BIAS_MARGIN = 1.0001  # its scale is above the smallest that fits into 32 bits


class Int8Constants:
    """The constants of a model in int8; each is quantised once."""

    def __init__(
        self,
        model: onnx.ModelProto,
        how: Quantization,
        instead: Mapping[str, Floats] | None = None,
    ) -> None:
        """Keep a model, which must not change afterwards; take other values of some constants."""
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._how = how
        self._arrays = dict(instead or {})
        self._scales: dict[tuple[str, bool, int | None], Scales] = {}
        self._integers: dict[tuple[str, bytes], Integers] = {}

    def array(self, name: str) -> Floats:
        """Return the float32 values of a constant."""
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._tensors[name])
        return self._arrays[name]

    def scales(self, name: str, *, weight: bool, axis: int | None) -> Scales:
        """Return scales and zero points of a constant, by index of an axis if one is given.

        ``weight``: it has the type of weights, and not that of activations.
        """
        key = name, weight, axis
        if key not in self._scales:
            self._scales[key] = self._new_scales(name, weight, axis)
        return self._scales[key]

    def _new_scales(self, name: str, weight: bool, axis: int | None) -> Scales:
        array, signed = self.array(name), self._how.activations == "int8"
        if weight:
            return weight_scales(name, array, axis, self._how)
        top = (127 if signed else 255) if not self._how.reduce_range else 64 if signed else 127
        ends = array.min(initial=np.inf), array.max(initial=-np.inf)
        return activation_scales(name, (float(ends[0]), float(ends[1])), self._how, top)

    def integers(self, name: str, scales: Scales, axis: int | None) -> Integers:
        """Return a constant in these scales."""
        key = name, scales[0].tobytes()
        if key not in self._integers:
            self._integers[key] = quantised(self.array(name), scales, axis)
        return self._integers[key]


def weight_scales(name: str, array: Floats, axis: int | None, how: Quantization) -> Scales:
    """Return scales and zero points of a weight, by index of an axis if one is given.

    Raises:
        EvaluationError: A value is not finite.
    """
    axes = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
    largest = np.maximum(array.max(axes, initial=0), -array.min(axes, initial=0))
    if not np.isfinite(largest).all():
        raise EvaluationError(
            f"weight {name} has values that are not finite, which no scale of int8 holds; this "
            "subnet needs fp32"
        )
    scales = _positive(largest.astype(np.float64) / (64 if how.reduce_range else 127))
    return scales, np.zeros(scales.shape, np.int8)


def quantised(array: Floats, scales: Scales, axis: int | None) -> Integers:
    """Return values in scales, by index of an axis if one is given."""
    scale, point = scales
    # A scalar's quotient is no array.
    found = np.asarray(array / _along(scale, axis, array.ndim))
    np.rint(found, out=found)
    if point.any():
        found += point.flat[0]
    return found.astype(point.dtype)


def dequantised(integers: Integers, scales: Scales, axis: int | None) -> Floats:
    """Return the numbers that integers in scales stand for."""
    scale, point = (_along(each, axis, integers.ndim) for each in scales)
    return np.asarray((integers.astype(np.float64) - point) * scale, np.float32)


def _along(numbers: NDArray[Any], axis: int | None, ndim: int) -> NDArray[Any]:
    """Return numbers by index of an axis in a shape that broadcasts; others as they are."""
    return (
        numbers if axis is None else numbers.reshape([-1 if i == axis else 1 for i in range(ndim)])
    )


def activation_scales(
    name: str, ends: tuple[float, float], how: Quantization, top: int | None = None
) -> Scales:
    """Return scale and zero point of values between two ends; 0 is always one of them.

    ``top`` is the largest integer; by default that of the type.

    Raises:
        EvaluationError: An end is not finite.
    """
    if not np.isfinite(ends).all():
        raise EvaluationError(
            f"{name} has values from {ends[0]} to {ends[1]} on the calibration samples, which no "
            "scale of int8 holds; this subnet needs fp32"
        )
    low, high = np.float32(min(ends[0], 0)), np.float32(max(ends[1], 0))
    if how.activations == "int8":
        largest = np.asarray(max(-low, high), np.float64)
        return _positive(largest / (top or 127)), np.array(0, np.int8)
    scale = (np.float64(high) - np.float64(low)) / (top or 255)
    if scale < _TINY:
        return np.array(1, np.float32), np.array(0, np.uint8)
    return np.array(scale, np.float32), np.array(np.rint(-low / scale), np.uint8)


def widened(weight: Scales, data: Scales, bias: Floats) -> Scales:
    """Return scales of a weight, larger where the bias would not fit into 32 bits."""
    largest = np.abs(bias) if weight[0].ndim else np.abs(bias).max(initial=0)
    smallest = _BIAS_MARGIN * (2.0 * largest) / _BIAS_SPAN
    products = data[0].astype(np.float64) * weight[0].astype(np.float64)
    narrow = (products < smallest) & (products > 0)
    if not narrow.any():
        return weight
    ratios = np.divide(smallest, products, out=np.ones_like(products), where=narrow)
    return (weight[0].astype(np.float64) * ratios).astype(np.float32), weight[1]


def bias_integers(bias: Floats, scales: Floats) -> NDArray[np.int32]:
    """Return a bias in 32 bits."""
    found = np.rint(bias.astype(np.float64) / scales.astype(np.float64))
    return found.clip(_INT32.min, _INT32.max).astype(np.int32)


def _positive(scales: NDArray[np.float64]) -> Floats:
    """Return scales in float32; 1 where there is nothing but zeros."""
    return np.where(scales < _TINY, 1.0, scales).astype(np.float32)
