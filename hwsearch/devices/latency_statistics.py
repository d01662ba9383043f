"""Statistics of a benchmark's rounds: medians, bootstrap intervals, latencies and warnings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.base import MIN_ROUNDS, Latency, MeasureSettings
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE

CONFIDENCE = 0.95
N_DRAWS = 2000

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CV_LIMIT = 0.025
DRIFT_LIMIT = 0.10
SHORT_MS = 0.1
WAITED_LIMIT = 0.10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounds:
    """Times of all rounds of a benchmark.

    Attributes:
        times_s: One (n_rounds, n_runs) array per entry, seconds; the anchor's is the last.
        wanted: Whether every interval reached the requested width within the time limit.
    """

    times_s: tuple[Floats, ...]
    wanted: bool

    def bursts_s(self) -> Floats:
        """Return median times of bursts: (n_rounds, n_entries) seconds, the anchor last."""
        return np.stack([np.median(times, axis=1) for times in self.times_s], axis=1)

    def ratios(self) -> Floats:
        """Return times relative to the anchor's in the same round: (n_rounds, n_models)."""
        bursts = self.bursts_s()
        return np.asarray(bursts[:, :-1] / bursts[:, -1:], dtype=np.float64)

    def counted(self) -> Bools:
        """Return which rounds count for which model: (n_rounds, n_models).

        These are the rounds without disturbance of model and anchor; all where those are under
        five.
        """
        calm = undisturbed(self.bursts_s())
        both: Bools = calm[:, :-1] & calm[:, -1:]
        both[:, both.sum(axis=0) < MIN_ROUNDS] = True
        return both

    def medians(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return median ratios, (n_models,), and their bootstraps, (2000, n_models)."""
        pairs = zip(self.ratios().T, self.counted().T, strict=True)
        columns = [ratios[counted] for ratios, counted in pairs]
        draws = [median_draws(column[:, None], rng) for column in columns]
        return np.array([np.median(column) for column in columns]), np.concatenate(draws, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedModel:
    """Records of one model besides its times; ``inputs`` and ``waited`` are those of `Latency`.

    ``relative`` is the time in each mode of a device with its own memory, relative to the
    latency's mode; empty for other devices.
    """

    inputs: str
    waited: float | None
    relative: Mapping[str, float] = field(default_factory=dict)


def estimate_latencies(
    rounds: Rounds,
    models: Sequence[TimedModel],
    *,
    device: str,
    fingerprint: str,
    baseline_s: Floats,
    baseline_path: str,
    transfers: str | None = None,
    rng: np.random.Generator,
    settings: MeasureSettings,
    cost_s: float,
) -> list[Latency]:
    """Estimate the latency of each model, in the order of their times.

    ``baseline_s`` are the (n_bursts,) median burst times of the anchor's baseline, ``cost_s`` is
    the duration of the benchmark per model; see `Latency` for the others.
    """
    ratios, bursts, counted = rounds.ratios(), rounds.bursts_s(), rounds.counted()
    middle, ratio_draws = rounds.medians(rng)
    baseline_draws = median_draws(baseline_s[:, None], rng)
    low, high = percentile_interval(ratio_draws)
    low_s, high_s = percentile_interval(ratio_draws * baseline_draws)
    base_low, base_high = percentile_interval(baseline_draws)
    baseline_ms = float(np.median(baseline_s)) * 1e3
    anchor_ms = float(np.median(bursts[:, -1])) * 1e3
    latencies = []
    for index, model in enumerate(models):
        times, modes = rounds.times_s[index], model.relative
        latency_ms = float(middle[index]) * baseline_ms
        p90, p99 = np.percentile(times / bursts[:, -1:] * baseline_ms, [90, 99])
        cv = float(np.std(ratios[:, index], ddof=1) / np.mean(ratios[:, index]))
        latency = Latency(
            device=device,
            fingerprint=fingerprint,
            inputs=model.inputs,
            latency_ms=latency_ms,
            low_ms=float(low_s[index]) * 1e3,
            high_ms=float(high_s[index]) * 1e3,
            ratio=float(middle[index]),
            ratio_low=float(low[index]),
            ratio_high=float(high[index]),
            p90_ms=float(p90),
            p99_ms=float(p99),
            rounds=len(ratios),
            runs=times.size,
            cv=cv,
            waited=model.waited,
            anchor_ms=anchor_ms,
            baseline_ms=baseline_ms,
            baseline_low_ms=float(base_low[0]) * 1e3,
            baseline_high_ms=float(base_high[0]) * 1e3,
            warnings=(),
            ratios=ratios[:, index].copy(),
            counted=counted[:, index].copy(),
            times_ms=times * 1e3,
            cost_s=cost_s,
            device_ms=latency_ms * modes[ON_DEVICE] if modes else None,
            end_to_end_ms=latency_ms * modes[END_TO_END] if modes else None,
            transfers=transfers if modes else None,
        )
        warnings = _warnings(latency, rounds.wanted, settings, baseline_path)
        latencies.append(replace(latency, warnings=warnings))
    return latencies


def _warnings(
    latency: Latency, wanted: bool, settings: MeasureSettings, baseline_path: str
) -> tuple[str, ...]:
    cv, waited, n_rounds = latency.cv, latency.waited or 0.0, latency.rounds
    typical_ms = float(np.median(latency.times_ms))
    width = (latency.ratio_high - latency.ratio_low) / 2 / latency.ratio
    precise = width <= settings.half_width and n_rounds >= settings.first_look
    drift = latency.anchor_ms / latency.baseline_ms - 1
    doubts = (
        (
            cv > CV_LIMIT,
            f"rounds differ by {cv:.1%} (more than {CV_LIMIT:.1%}) because other work shares "
            "these cores or their clock changes: stop that work, or fix the clock's governor",
        ),
        (
            typical_ms < SHORT_MS,
            f"one run takes {typical_ms:.3g} ms, of which calling the runtime is a noticeable "
            f"part (below {SHORT_MS:g} ms): measure with a larger batch",
        ),
        (
            waited > WAITED_LIMIT,
            f"other work had the CPU for {waited:.0%} of the time, which is taken out, though not "
            "what it did to the caches: stop that work to be sure",
        ),
        (
            not wanted and not precise,
            f"time ran out after {n_rounds} rounds with an interval of ±{width:.1%} where "
            f"±{settings.half_width:.1%} was wanted, because this machine is noisy or the model "
            f"slow: raise seconds_per_model (now {settings.seconds_per_model:g})",
        ),
        (
            drift > DRIFT_LIMIT,
            f"the anchor took {drift:.0%} longer than its baseline because this machine is busier "
            "or slower now: rankings hold, and milliseconds are those of the calmer time",
        ),
        (
            drift < -DRIFT_LIMIT,
            f"the anchor was {-drift:.0%} faster than its baseline, which was taken on a busier "
            f"machine: delete {baseline_path} to have it taken again, as milliseconds are too "
            "high now",
        ),
    )
    return tuple(text for seen, text in doubts if seen)


def undisturbed(times: Floats) -> Bools:
    """Return which (n_rounds, n_columns) times are not prolonged by other work.

    They are at most 10% above their column's 20th percentile. Other work on the same core or cache
    slows a model by more than that, in a tenth to most of the rounds of a few seconds, and some
    models more than others, which a ratio does not cancel. Times on a shared machine are therefore
    bimodal, and a median over both modes depends on chance.
    """
    near: Bools = times <= 1.1 * np.quantile(times, 0.2, axis=0)
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


def middle_mean(values: Floats) -> Floats:
    """Return the mean of the middle half of values along the first axis.

    It is robust against interrupted kernels, and finer than a median of whole microseconds.
    """
    ordered = np.sort(values, axis=0)
    outer = len(values) // 4
    return np.asarray(ordered[outer : len(values) - outer].mean(axis=0), dtype=np.float64)


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
