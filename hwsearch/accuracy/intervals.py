"""Confidence intervals of the mean over samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


def mean_interval(outcomes: NDArray[Any]) -> tuple[float, float, float]:
    """Return the mean of (n,) outcomes and its 95% interval.

    For outcomes of 0 or 1 it is Wilson's score interval (Wilson, JASA 1927), else the normal
    approximation.
    """
    values = outcomes.astype(np.float64)
    n, mean = len(values), float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        centre = (mean + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * np.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n * n))
        return mean, min(float(centre - half), mean), max(float(centre + half), mean)
    half = Z95 * float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else 0.0
    return mean, mean - half, mean + half


def paired_difference(
    a: NDArray[Any], b: NDArray[Any], scale: float = 1.0
) -> tuple[float, float, float]:
    """Return the mean of ``a - b``, times ``scale``, and its 95% interval.

    ``a`` and ``b`` are (n,) outcomes of two subnets on the same samples in the same order. Pairing
    cancels the difficulty of the samples: the interval is much narrower than those of the scores.
    """
    difference = (a.astype(np.float64) - b.astype(np.float64)) * scale
    half = Z95 * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    mean = float(difference.mean())
    return mean, mean - half, mean + half
