"""Ranges of activations that lose least to rounding and clipping, from histograms of samples."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import EvaluationError
from hwsearch.models.execution import Session
from hwsearch.quantization import Quantization

_BINS: Final = 4096  # on each side of 0
_DRAWN: Final = 1 << 14  # numbers of an activation and a batch, at least, if it has so many
_STRIDE: Final = 6  # steps are one more than a multiple: no divisor of most widths of images
_FRACTIONS: Final = 2.0 ** (-np.arange(64) / 8)  # of the largest value, that ends are tried at
_SUFFIXES: Final = ("smallest", "largest", "drawn")
_END: Final = np.iinfo(np.int64).max

Floats = NDArray[np.float64]


def clipped_ranges(
    model: onnx.ModelProto,
    names: Collection[str],
    batches: Iterable[Mapping[str, NDArray[Any]]],
    how: Quantization,
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return the ranges of activations in 8 bits, and the number of samples.

    A range has the smallest mean squared error of what is rounded inside it, and clipped to its
    ends outside. It lies within the smallest and largest value, as those of `activation_ranges`,
    and is that where an activation is not finite. A model is run once; of large activations
    evenly spaced numbers are counted.

    Args:
        model: A float32 model of opset 13 or later.
        names: Float32 inputs, outputs and values between nodes.
        batches: Inputs by name; one batch is held at a time.
        how: With zero points the two ends are chosen apart.

    Raises:
        EvaluationError: There are no samples, or ONNX Runtime refuses the model or a batch.
    """
    session = Session(_with_draws(model, names), optimised=False)
    histograms, count = {name: Histogram() for name in names}, 0
    for batch in batches:
        found = session(batch)
        for name, histogram in histograms.items():
            low, high, drawn = (found[f"{name}/{suffix}"] for suffix in _SUFFIXES)
            histogram.add(drawn, float(low), float(high))
        count += len(next(iter(batch.values())))
    if not count:
        raise EvaluationError("there are no samples to calibrate int8 ranges with")
    symmetric = how.activations == "int8"
    return {name: each.range(symmetric=symmetric) for name, each in histograms.items()}, count


class Histogram:
    """Counts of values in bins of equal width on both sides of 0, which double with the values.

    Attributes:
        low: Smallest value.
        high: Largest value.
    """

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._width = 0.0
        self._counts = np.zeros(2 * _BINS)

    def add(self, values: NDArray[np.float32], low: float, high: float) -> None:
        """Count values, which lie within a range; zeros, which int8 holds, are left out."""
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        total = values.sum(dtype=np.float64)
        if not np.isfinite((total, self.low, self.high)).all():  # NaN is in no extreme
            self.low = self.high = np.nan if np.isnan(total) else np.inf
            return
        largest = max(-self.low, self.high)
        if not largest:
            return
        if not self._width:
            self._width = largest / (_BINS - 1)
        while largest > self._width * (_BINS - 1):
            self._widen()
        bins = np.floor(values * (1 / self._width)).astype(np.int64) + _BINS
        self._counts += np.bincount(bins, minlength=2 * _BINS)
        self._counts[_BINS] -= values.size - np.count_nonzero(values)

    def _widen(self) -> None:
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros(2 * _BINS)
        self._counts[_BINS // 2 : _BINS // 2 + _BINS] = pairs
        self._width *= 2

    def range(self, *, symmetric: bool) -> tuple[float, float]:
        """Return the ends that lose least; ``symmetric`` if only the larger of them matters."""
        if not self._width or not np.isfinite((self.low, self.high)).all():
            return float(self.low), float(self.high)
        if symmetric:
            highs = max(-self.low, self.high) * _FRACTIONS
            lows = -highs
        else:
            lows = min(self.low, 0.0) * _FRACTIONS if self.low < 0 else np.zeros(1)
            highs = max(self.high, 0.0) * _FRACTIONS if self.high > 0 else np.zeros(1)
            lows, highs = (each.ravel() for each in np.meshgrid(lows, highs, indexing="ij"))
        best = int(np.argmin(self.errors(lows, highs, 254 if symmetric else 255)))
        return max(float(lows[best]), float(self.low)), min(float(highs[best]), float(self.high))

    def errors(self, lows: Floats, highs: Floats, levels: int) -> Floats:
        """Return sums of squared errors of ranges: (n,).

        Rounding by steps of D loses D^2 / 12 on average, and x^2 where x is closer to 0 than D/2.
        """
        centres = (np.arange(-_BINS, _BINS) + 0.5) * self._width
        sums = [np.concatenate([[0], np.cumsum(self._counts * centres**k)]) for k in range(3)]
        steps = (highs - lows) / levels

        def edge(value: Floats) -> NDArray[np.int64]:
            return np.clip(np.rint(value / self._width).astype(np.int64) + _BINS, 0, 2 * _BINS)

        below, above = edge(lows), edge(highs)
        inner, outer = edge(np.maximum(-steps / 2, lows)), edge(np.minimum(steps / 2, highs))
        n, x, xx = sums
        rounded = (n[above] - n[below] - n[outer] + n[inner]) * steps**2 / 12
        lost = rounded + xx[outer] - xx[inner]
        lost += xx[below] - 2 * lows * x[below] + lows**2 * n[below]
        over = [each[-1] - each[above] for each in sums]
        return np.asarray(lost + over[2] - 2 * highs * over[1] + highs**2 * over[0])


def _with_draws(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a model whose outputs are extremes and evenly spaced numbers of activations."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.output[:]
    constants = {"drawn": _STRIDE * _DRAWN, "stride": _STRIDE, "one": 1}
    vectors = {"flat": -1, "first": 0, "last": _END, "axis": 0}
    for key, number in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), f"/{key}"))
    for key, number in vectors.items():
        graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), f"/{key}"))

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    for name in names:
        flat = node("Reshape", [name, "/flat"], f"{name}/flat")
        size = node("Shape", [flat], f"{name}/size")
        times = node("Div", [size, "/drawn"], f"{name}/times")
        step = node("Mul", [times, "/stride"], f"{name}/before")
        step = node("Add", [step, "/one"], f"{name}/step")
        node("Slice", [flat, "/first", "/last", "/axis", step], f"{name}/drawn")
        for kind, suffix in (("ReduceMin", "smallest"), ("ReduceMax", "largest")):
            node(kind, [name], f"{name}/{suffix}", keepdims=0)
        for suffix in _SUFFIXES:
            shape = [None] if suffix == "drawn" else []
            value = helper.make_tensor_value_info(f"{name}/{suffix}", TensorProto.FLOAT, shape)
            graph.output.append(value)
    return result
