"""Mean and variance of every channel, added up from parts without losing precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# So much of a layer's input stays in a processor's cache between mean and variance.
CACHED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What mean and variance follow from.

    Attributes:
        samples: How many there are.
        count: How many values each channel has.
        mean: (channels,), float64.
        squares: (channels,) sum of squared deviations from the mean, float64.
    """

    samples: int
    count: int
    mean: Tensor
    squares: Tensor

    @property
    def var(self) -> Tensor:
        """(channels,) biased variance, float64."""
        return self.squares / self.count


def sums_of(values: Tensor) -> Sums:
    """Add up values in double precision.

    Sums are of few values in single precision, and of those sums in double: torch's own batch
    norm adds up all values of a channels-last batch in single precision, and is off by 0.5% of
    the variance for 200 images of 112 by 112.

    Args:
        values: (n, channels, ...), n from 1 up.
    """
    rows = values.reshape(*values.shape[:2], -1).transpose(1, 2)
    at_a_time = max(1, CACHED_BYTES // (rows[0].numel() * rows.element_size()))
    return joined([_sums(part) for part in torch.split(rows, at_a_time)])


def _sums(rows: Tensor) -> Sums:
    samples, count = len(rows), rows.shape[0] * rows.shape[1]
    mean = rows.sum(1).double().sum(0) / count
    centre = mean.to(rows.dtype)
    squares = (rows - centre).square_().sum(1).double().sum(0)
    return Sums(samples, count, mean, squares)


def joined(parts: Sequence[Sums]) -> Sums:
    """Return the sums of all parts (Chan, Golub and LeVeque, "Updating formulae", 1979)."""
    counts = torch.tensor([[part.count] for part in parts], dtype=torch.float64)
    means = torch.stack([part.mean for part in parts])
    mean = (counts * means).sum(0) / counts.sum()
    squares = torch.stack([part.squares for part in parts]) + counts * (means - mean).square()
    samples, count = sum(part.samples for part in parts), sum(part.count for part in parts)
    return Sums(samples, count, mean, squares.sum(0))
