"""Medians with intervals for values that come one after another on a machine that drifts."""

import math
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
N_DRAWS = 2000

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# A neighbour on the same physical core or cache slows a model by more than this, and steals a
# tenth to most of the rounds of a few seconds; what varies by itself varies by less.
_DISTURBED = 0.10
_CALM_QUANTILE = 0.20


def undisturbed(times: Floats) -> Bools:
    """Tell which times are near the calm ones of their column.

    A shared machine has two speeds: its own, and a slower one while somebody else uses the same
    physical core or cache, which slows some models more than others, so that it does not cancel
    in a ratio. Which of the two a median falls into is luck.

    Args:
        times: (n_rounds, n_columns), positive.

    Returns:
        The same shape: at most 10% above the 20th percentile of the column.
    """
    calm = np.quantile(times, _CALM_QUANTILE, axis=0)
    near: Bools = times <= (1 + _DISTURBED) * calm
    return near


def median_draws(values: Floats, rng: np.random.Generator) -> Floats:
    """Bootstrap the medians of columns by resampling blocks of consecutive rows.

    Neighbouring rounds share the machine's mood, so rows are drawn in blocks of about the cube
    root of their number, around the end where needed (circular block bootstrap; Politis and
    Romano 1992). With few blocks such draws lie too close together, so each is moved away from
    the sample's median, in logarithms, by the ratio of Student's t to the normal quantile at one
    degree of freedom less than there are blocks. All columns use the same blocks.

    Args:
        values: (n_rounds, n_columns), positive; NaN where a row does not count for a column, but
            for no whole column.
        rng: Where the blocks come from.

    Returns:
        (2000, n_columns) medians of what counts; of the whole column where nothing drawn does.
    """
    n_rounds, n_columns = values.shape
    length = max(1, round(n_rounds ** (1 / 3)))
    n_blocks = -(-n_rounds // length)
    starts = rng.integers(0, n_rounds, (N_DRAWS, n_blocks, 1))
    rows = ((starts + np.arange(length)) % n_rounds).reshape(N_DRAWS, -1)[:, :n_rounds]
    drawn = [_medians(values[rows, column]) for column in range(n_columns)]
    centre = _medians(values.T)
    draws = np.where(np.isnan(drawn), centre[:, None], drawn).T
    quantile = (1 + CONFIDENCE) / 2
    freedom = np.maximum(1.0, np.isfinite(values).sum(axis=0) / length - 1)
    wide = [student_quantile(quantile, float(each)) for each in freedom]
    widening = np.array(wide) / NormalDist().inv_cdf(quantile)
    return np.asarray(centre * (draws / centre) ** widening, dtype=np.float64)


def _medians(values: Floats) -> Floats:
    """Medians of rows, over what is not NaN; NaN where nothing is."""
    n_counted = (~np.isnan(values)).sum(axis=1)
    ordered, rows = np.sort(values, axis=1), np.arange(len(values))  # NaN comes last
    low = ordered[rows, np.maximum(n_counted - 1, 0) // 2]
    middle: Floats = (low + ordered[rows, n_counted // 2]) / 2
    return middle


def percentile_interval(draws: Floats) -> tuple[Floats, Floats]:
    """The central 95% of bootstrap draws, per column.

    Args:
        draws: (n_draws, n_columns).

    Returns:
        Low and high ends, (n_columns,) each.
    """
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    return low, high


@cache
def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution.

    With t = sqrt(freedom) * tan(angle) the density is cos(angle) to the power of freedom - 1, up
    to a constant. Its integral from 0 is concave, so that Newton's steps from 0 rise to the
    solution and never pass it. No scipy: the machines that a kit measures on have none.

    Args:
        probability: From 0.5 up, below 1.
        freedom: Degrees of freedom, from 1 up; not necessarily whole.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    scale = math.sqrt(math.pi) * math.exp(
        math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)
    )
    wanted, angle, step = (probability - 0.5) * scale, 0.0, 1.0
    while step > 1e-14 * max(1.0, angle):
        between = np.cos(angle * (nodes + 1) / 2) ** (freedom - 1)
        reached = angle / 2 * float(weights @ between)
        step = (wanted - reached) / math.cos(angle) ** (freedom - 1)
        angle += step
    return math.sqrt(freedom) * math.tan(angle)
