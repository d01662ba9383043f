"""Bootstrap intervals of medians of time series with drift."""

import math
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
N_DRAWS = 2000

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Other work on the same physical core or cache slows a model by more than this, in a tenth to most
# of the rounds of a few seconds; the variation of an undisturbed model is smaller.
_DISTURBED = 0.10
_CALM_QUANTILE = 0.20


def undisturbed(times: Floats) -> Bools:
    """Return which (n_rounds, n_columns) times are not prolonged by other work.

    They are at most 10% above their column's 20th percentile. Other work on the same core or cache
    slows some models more than others, which a ratio does not cancel. Times on a shared machine
    are therefore bimodal, and a median over both modes depends on chance.
    """
    calm = np.quantile(times, _CALM_QUANTILE, axis=0)
    near: Bools = times <= (1 + _DISTURBED) * calm
    return near


def median_draws(values: Floats, rng: np.random.Generator) -> Floats:
    """Return bootstrapped medians of columns (circular block bootstrap; Politis and Romano 1992).

    Neighbouring rounds are correlated, so rows are drawn in blocks of about the cube root of their
    number, the same for all columns. With few blocks such draws are too narrow: each is moved away
    from the sample's median, in logarithms, by the ratio of Student's t to the normal quantile at
    one degree of freedom less than there are blocks.

    Args:
        values: (n_rounds, n_columns), positive; NaN where a row does not count for a column, but
            not in a whole column.
        rng: Random generator of the blocks.

    Returns:
        (2000, n_columns) medians of the counted rows; of the whole column where a draw has none.
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
    """Return medians of rows without NaN; NaN for rows of NaN."""
    n_counted = (~np.isnan(values)).sum(axis=1)
    ordered, rows = np.sort(values, axis=1), np.arange(len(values))  # NaN comes last
    low = ordered[rows, np.maximum(n_counted - 1, 0) // 2]
    middle: Floats = (low + ordered[rows, n_counted // 2]) / 2
    return middle


def percentile_interval(draws: Floats) -> tuple[Floats, Floats]:
    """Return the ends, (n_columns,) each, of the central 95% of (n_draws, n_columns) draws."""
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    return low, high


@cache
def student_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution, without scipy, which kits lack.

    With t = sqrt(freedom) * tan(angle) the density is cos(angle) to the power of freedom - 1, up
    to a constant. Its integral from 0 is concave, so that Newton's method converges from below.
    ``probability`` is in [0.5, 1), ``freedom`` at least 1.
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
