"""Rows of the matrices that convolutions multiply: patches of their inputs (im2col)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Geometry of a convolution, of any number of spatial axes.

    Attributes:
        pads: At the begin of every axis, then at the end; ignored if ``auto_pad`` sets them.
        transposed: Whether it is a ConvTranspose.
        output_padding: Added to the end of a transposed convolution's output.
        output_shape: Spatial shape of a transposed convolution's output, if the node sets it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, attributes: Mapping[str, Any], kernel: Sequence[int], *, transposed: bool
    ) -> "Window":
        """Return the geometry that a node's attributes give."""
        n = len(kernel)
        auto_pad = attributes.get("auto_pad", b"NOTSET")
        return cls(
            kernel=tuple(map(int, kernel)),
            strides=tuple(attributes.get("strides", (1,) * n)),
            dilations=tuple(attributes.get("dilations", (1,) * n)),
            pads=tuple(attributes.get("pads", (0,) * (2 * n))),
            auto_pad=auto_pad.decode() if isinstance(auto_pad, bytes) else auto_pad,
            transposed=transposed,
            output_padding=tuple(attributes.get("output_padding", (0,) * n)),
            output_shape=tuple(attributes.get("output_shape", ())),
        )

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial shape of the output for that of the input."""
        return tuple(self._axis(axis, size)[0] for axis, size in enumerate(spatial))

    def indices(self, spatial: Sequence[int], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (positions, kernel positions): flat input positions of flat output positions.

        The size of the input stands for padding.
        """
        outputs = self.output(spatial)
        inside, flat = np.ones((len(positions), 1), bool), np.zeros((len(positions), 1), np.int64)
        for axis, where in enumerate(np.unravel_index(positions, outputs)):
            table = self._table(axis, spatial[axis], outputs[axis])[where]
            flat = (flat[:, :, None] * spatial[axis] + table[:, None]).reshape(len(positions), -1)
            inside = (inside[:, :, None] & (table >= 0)[:, None]).reshape(len(positions), -1)
        return np.where(inside, flat, math.prod(spatial))

    def _axis(self, axis: int, size: int) -> tuple[int, int]:
        """Return the size of the output and the padding at the begin."""
        n, stride = len(self.kernel), self.strides[axis]
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        same = self.auto_pad in ("SAME_UPPER", "SAME_LOWER")
        begin, end = self.pads[axis], self.pads[axis + n]
        if self.auto_pad == "VALID":
            begin = end = 0
        if not self.transposed:
            if same:
                total = max((-(-size // stride) - 1) * stride + reach - size, 0)
                begin = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
                end = total - begin
            return (size + begin + end - reach) // stride + 1, begin
        extent = stride * (size - 1) + self.output_padding[axis] + reach
        if self.output_shape or same:
            output = self.output_shape[axis - n] if self.output_shape else size * stride
            total = max(extent - output, 0)
            begin = total - total // 2 if self.auto_pad != "SAME_UPPER" else total // 2
            return output, begin
        return extent - begin - end, begin

    def _table(self, axis: int, size: int, output: int) -> NDArray[np.int64]:
        """Return (output, kernel): the input position along an axis, -1 for padding."""
        begin = self._axis(axis, size)[1]
        out = np.arange(output)[:, None]
        offset = np.arange(self.kernel[axis])[None] * self.dilations[axis]
        if self.transposed:
            scattered = out + begin - offset
            at = scattered // self.strides[axis]
            inside = scattered % self.strides[axis] == 0
        else:
            at = out * self.strides[axis] + offset - begin
            inside = np.ones_like(at, bool)
        return np.where(inside & (at >= 0) & (at < size), at, -1)


def row_count(window: Window | None, shape: Sequence[int], rows_axis: int = -1) -> int:
    """Return the number of rows of an activation of a shape, the batch included."""
    if window is None:
        return math.prod(shape) // max(shape[rows_axis], 1)
    return shape[0] * math.prod(window.output(shape[2:]))


def input_rows(
    window: Window | None,
    x: NDArray[Any],
    chosen: NDArray[np.int64],
    *,
    groups: int = 1,
    rows_axis: int = -1,
) -> NDArray[np.float32]:
    """Return (chosen, convolution groups, columns): what a layer multiplies for chosen rows.

    A column is a channel and a position of the kernel, in the order of a weight's values.
    """
    if window is None:
        return np.moveaxis(x, rows_axis, -1).reshape(-1, x.shape[rows_axis])[chosen][:, None]
    samples, channels, *spatial = x.shape
    size = math.prod(spatial)
    sample, position = np.divmod(chosen, math.prod(window.output(spatial)))
    # Channels last, so that one index reads all channels at once; a row of zeros for padding.
    last = np.zeros((samples, size + 1, channels), np.float32)
    last[:, :size] = x.reshape(samples, channels, size).transpose(0, 2, 1)
    rows = last[sample[:, None], window.indices(spatial, position)]
    split = rows.reshape(len(chosen), -1, groups, channels // groups)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1)).reshape(len(chosen), groups, -1)


def output_rows(
    window: Window | None, y: NDArray[Any], chosen: NDArray[np.int64], *, rows_axis: int = -1
) -> NDArray[np.float32]:
    """Return (chosen, output channels): what a layer returned for the rows of `input_rows`."""
    if window is None:
        return np.moveaxis(y, rows_axis, -1).reshape(-1, y.shape[rows_axis])[chosen]
    flat = y.reshape(*y.shape[:2], -1)
    sample, position = np.divmod(chosen, flat.shape[2])
    return np.ascontiguousarray(flat[sample, :, position])
