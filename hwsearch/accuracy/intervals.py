"""Scores with their intervals, from per-sample outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.task import Metric
from hwsearch.errors import EvaluationError

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The mean of per-sample outcomes, scaled by the metric, with its 95% interval.

    Attributes:
        value: Scaled mean.
        low: Lower end of the interval.
        high: Upper end of the interval.
        outcomes: (n,) unscaled outcome of each sample, in the order of the samples.
    """

    value: float
    low: float
    high: float
    outcomes: NDArray[Any]


def score_outcomes(outcomes: NDArray[Any], metric: Metric) -> Score:
    """Return the score that (n,) unscaled outcomes make, n from 1 up."""
    value, low, high = mean_interval(outcomes)
    scaled = sorted((low * metric.scale, high * metric.scale))
    return Score(value=value * metric.scale, low=scaled[0], high=scaled[1], outcomes=outcomes)


def sample_outcomes(
    outputs: Sequence[NDArray[Any]],
    targets: NDArray[Any],
    metric: Metric,
    declared: Sequence[str],
) -> NDArray[Any]:
    """Return the outcome of every sample of a batch.

    Args:
        outputs: Of the model, (n, ...) each.
        targets: (n,) array.
        metric: Gives each sample's outcome.
        declared: Names of the outputs, in order.

    Returns:
        (n,) unscaled outcomes.

    Raises:
        EvaluationError: The metric fails, or outputs or outcomes are not finite.
    """
    scored = metric.scored(outputs, declared)
    if not all(np.isfinite(output).all() for output in scored):
        raise EvaluationError("the model's outputs hold NaN or infinite numbers")
    try:
        outcomes = np.asarray(metric.per_sample(scored, targets))
    except Exception as error:
        # A metric is a stranger's code: whatever it raises is this trial's failure.
        raise EvaluationError(
            f"metric {metric.name!r} raised {type(error).__name__}: {error}"
        ) from error
    if outcomes.shape != (len(targets),):
        raise EvaluationError(
            f"metric {metric.name!r} gave an array of shape {outcomes.shape} for "
            f"{len(targets)} samples; it must give one outcome for each"
        )
    if not np.isfinite(outcomes.astype(np.float64)).all():
        raise EvaluationError(f"metric {metric.name!r} gave NaN or infinite outcomes")
    return outcomes


def mean_interval(outcomes: NDArray[Any]) -> tuple[float, float, float]:
    """Return the mean of (n,) outcomes and its 95% interval.

    For outcomes that are all 0 or 1 it is Wilson's score interval (Wilson, JASA 1927), else the
    normal approximation.
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
    """Return the mean of ``a - b`` over the same samples, and its 95% interval.

    Pairing leaves out what both find hard: the interval is much narrower than the two scores'
    own would suggest.

    Args:
        a: (n,) outcomes of one subnet.
        b: (n,) outcomes of another on the same samples in the same order.
        scale: The metric's scale.
    """
    difference = (a.astype(np.float64) - b.astype(np.float64)) * scale
    half = Z95 * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    mean = float(difference.mean())
    return mean, mean - half, mean + half
