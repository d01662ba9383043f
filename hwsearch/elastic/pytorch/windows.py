"""Shifted window attention of torchvision's Swin Transformer with fewer heads."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.swin_transformer import ShiftedWindowAttention


def _split(tensor: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    return tensor.unflatten(axis, sizes)  # type: ignore[no-untyped-call,no-any-return]


class CutShiftedWindowAttention(ShiftedWindowAttention):  # type: ignore[misc]  # is untyped
    """Window attention whose heads together are narrower than its input.

    Its parameters are those of the class it is derived from, under the same names, with fewer rows
    of ``qkv`` and columns of ``proj`` and of ``relative_position_bias_table``. Method: Liu et al.,
    "Swin Transformer", ICCV 2021, section 3.2.
    """

    head_dim: int

    @classmethod
    def convert(cls, attention: Any, heads: int) -> None:
        """Make an attention one that keeps so many heads, in place."""
        attention.head_dim = attention.qkv.out_features // 3 // attention.num_heads
        attention.__class__ = cls
        attention.num_heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended values: (samples, height, width, channels), as the input."""
        height, width = x.shape[1:3]
        down, right = (-height % self.window_size[0], -width % self.window_size[1])
        x = functional.pad(x, (0, 0, 0, right, 0, down))
        shift = [
            0 if window >= size else step
            for window, size, step in zip(
                self.window_size, x.shape[1:3], self.shift_size, strict=True
            )
        ]
        rolled = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
        windows = self._windows(rolled)  # (samples, windows, places, channels)
        qkv = self.qkv(windows).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.transpose(2, 4).unbind(3)  # (samples, windows, heads, places, head)
        scores = q * self.head_dim**-0.5 @ k.transpose(-2, -1) + self.get_relative_position_bias()
        if any(shift):
            scores = scores + self._mask(rolled, shift)
        weights = functional.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        result: Tensor = self.proj((weights @ v).transpose(2, 3).flatten(3))
        result = functional.dropout(result, self.dropout, self.training)
        rows, columns = (
            size // window for size, window in zip(x.shape[1:3], self.window_size, strict=True)
        )
        result = _split(result, 2, tuple(self.window_size))
        result = _split(result, 1, (rows, columns))
        result = result.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return torch.roll(result, (shift[0], shift[1]), (1, 2))[:, :height, :width].contiguous()

    def _windows(self, x: Tensor) -> Tensor:
        """Split (samples, height, width, channels) into (samples, windows, places, channels)."""
        x = _split(x, 2, (-1, self.window_size[1]))
        x = _split(x, 1, (-1, self.window_size[0]))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _mask(self, x: Tensor, shift: list[int]) -> Tensor:
        """Return -100 between places that the shift has brought together: (windows, 1, n, n)."""
        regions = x.new_zeros((1, *x.shape[1:3], 1))
        for axis, (window, step) in enumerate(zip(self.window_size, shift, strict=True), start=1):
            size = x.shape[axis]
            for begin in (size - window, size - step):
                regions.narrow(axis, begin, size - begin).add_(3.0 ** (axis - 1))
        places = self._windows(regions)[0, :, :, 0]
        apart = places.unsqueeze(1) != places.unsqueeze(2)
        return apart.to(x.dtype).mul(-100.0).unsqueeze(1)
