"""Statistics of a benchmark's rounds: undisturbed times, intervals, latencies and warnings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.base import MIN_ROUNDS, Latency, MeasureSettings
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE

CONFIDENCE = 0.95
TURN_QUANTILE = 0.10
DISTURBED = 0.30
BATCH_ROUNDS, MAX_BATCHES = 5, 12  # the intervals of 8 to 256 independent rounds hold 95% so
_SWEEPS = 6
_CUT, _LEAST_SCALE = 3.0, 1e-4
_PRIOR = 4.0  # degrees of freedom of what all entries say about one's sessions

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
        times_s: (n_rounds, n_runs) seconds for every entry, models first and then anchors.
        n_models: Number of models.
        sessions: In how many sessions each entry was loaded; they take turns from round to round.
    """

    times_s: tuple[Floats, ...]
    n_models: int
    sessions: int = 1

    def logs(self) -> Floats:
        """Return logarithms of the tenth percentile of each turn: (n_rounds, n_entries)."""
        turns = [np.quantile(times, TURN_QUANTILE, axis=1) for times in self.times_s]
        return np.log(np.stack(turns, axis=1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Undisturbed times of the entries of a benchmark, in logarithms of seconds.

    Attributes:
        logs: (n_entries,) undisturbed times.
        half_widths: (n_entries,) half-widths of their 95% intervals.
        corrected: (n_rounds, n_entries) times without the effect of their rounds.
        counted: (n_rounds,) which rounds are undisturbed.
    """

    logs: Floats
    half_widths: Floats
    corrected: Floats
    counted: Bools


def estimate(rounds: Rounds) -> Estimate:
    """Estimate undisturbed times by an additive model of entries and rounds in logarithms.

    The effect of a round is estimated from all other entries, so that an entry's own noise does
    not cancel. Rounds count whose effect is at most 30% above the 20th percentile of all: what
    other work does to caches and clock differs from model to model and does not cancel. An entry's
    time is the median over the counted rounds; its interval is that of the median of batches of
    successive rounds (batch means; Law and Kelton, Simulation Modeling and Analysis, 1991, 9.5.3).
    What the sessions of entries differ by beyond that makes intervals wider.
    """
    logs = rounds.logs()
    entries, effects = np.median(logs, axis=0), np.zeros(len(logs))
    scales = np.ones(logs.shape[1])
    for _ in range(_SWEEPS):
        effects = _round_effects(logs - entries, scales)
        residuals = logs - effects[:, None]
        entries = np.median(residuals, axis=0)
        scales = _LEAST_SCALE + np.median(np.abs(residuals - entries), axis=0)
    counted = undisturbed(effects)
    others = ~np.eye(logs.shape[1], dtype=np.bool_)
    corrected = np.stack(
        [
            logs[:, i] - _round_effects((logs - entries)[:, other], scales[other])
            for i, other in enumerate(others)
        ],
        axis=1,
    )
    if counted.sum() < MIN_ROUNDS:
        counted[:] = True
    batches = batch_medians(corrected[counted])
    variances = _session_variances(corrected, counted, rounds.sessions, batches)
    middle, half_widths = np.median(corrected[counted], axis=0), half_widths_of(batches, variances)
    return Estimate(logs=middle, half_widths=half_widths, corrected=corrected, counted=counted)


def undisturbed(logs: Floats) -> Bools:
    """Return which logarithms of times, by column, are not prolonged by other work.

    They are at most 30% above the 20th percentile of their column.
    """
    near: Bools = logs <= np.quantile(logs, 0.2, axis=0) + math.log1p(DISTURBED)
    return near


def _round_effects(logs: Floats, scales: Floats) -> Floats:
    """Return the weighted mean of each row, cut at three scales from its weighted median.

    ``logs`` are (n_rounds, n_entries) without the entries' own effects; zeros if n_entries is 0.
    """
    if not scales.size:
        return np.zeros(len(logs))
    weights = 1 / scales**2
    order = np.argsort(logs, axis=1)
    reached = np.cumsum(weights[order], axis=1) >= weights.sum() / 2
    place = np.take_along_axis(order, reached.argmax(axis=1)[:, None], axis=1)
    middle = np.take_along_axis(logs, place, axis=1)
    cut = np.clip(logs - middle, -_CUT * scales, _CUT * scales)
    return np.asarray(middle[:, 0] + cut @ weights / weights.sum(), dtype=np.float64)


def batch_medians(values: Floats) -> Floats:
    """Return the medians of up to twelve batches of successive rows: (n_batches, n_columns).

    ``values`` are (n_rounds, n_columns) in the order of time. Medians of batches are nearly
    independent where single rows are not.
    """
    n_batches = int(np.clip(len(values) // BATCH_ROUNDS, 2, MAX_BATCHES))
    return np.stack([np.median(batch, axis=0) for batch in np.array_split(values, n_batches)])


def half_widths_of(batches: Floats, variances: Floats | float = 0.0) -> Floats:
    """Return half-widths of 95% intervals of the medians of all rows, (n_columns,).

    ``batches`` are those of `batch_medians`; ``variances`` are added to those of the medians.
    """
    quantile = student_quantile((1 + CONFIDENCE) / 2, float(len(batches) - 1))
    error = np.sqrt(batches.var(axis=0, ddof=1) / len(batches) + variances)
    return np.asarray(quantile * error, dtype=np.float64)


def _session_variances(
    corrected: Floats, counted: Bools, sessions: int, batches: Floats
) -> Floats:
    """Return the variance that the differences of sessions add to each entry's time, (n_entries,).

    The variance between an entry's few sessions, less that of the noise, which batches tell, is
    moderated by the mean over all entries (Smyth, Linear models and empirical Bayes methods,
    2004), weighted by their precision.
    """
    number = np.arange(len(counted)) % sessions
    parts = [corrected[counted & (number == each)] for each in range(sessions)]
    if sessions == 1 or min(map(len, parts)) < MIN_ROUNDS:
        return np.zeros(corrected.shape[1])
    between = np.var([np.median(part, axis=0) for part in parts], axis=0, ddof=1) / sessions
    noise = np.maximum(batches.var(axis=0, ddof=1) / len(batches), 1e-12)
    common = max(0.0, float(np.average(between - noise, weights=1 / noise)))
    freedom = sessions - 1
    moderated = (freedom * (between - noise) + _PRIOR * common) / (freedom + _PRIOR)
    return np.asarray(np.maximum(moderated, 0.0), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedModel:
    """Records of one model besides its running times; ``inputs`` are those of `Latency`.

    ``wall_s`` are the wall times of its counted runs, ``waited`` the share of them without a CPU,
    None where it is not recorded. ``relative`` is the time in each mode of a device with its own
    memory, relative to the latency's mode; empty for other devices.
    """

    inputs: str
    wall_s: Floats
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
    settings: MeasureSettings,
    cost_s: float,
) -> list[Latency]:
    """Estimate the latency of each model, in the order of their times.

    ``baseline_s`` are the (n_turns,) times of the first anchor's turns when its baseline was
    measured, ``cost_s`` is the duration of the benchmark per model; see `Latency` for the others.
    """
    found, n = estimate(rounds), rounds.n_models
    anchor, anchor_width = found.logs[n], found.half_widths[n]
    baseline_logs = np.log(baseline_s)[:, None]
    calm = baseline_logs[undisturbed(baseline_logs)[:, 0]]
    calm = calm if len(calm) > 1 else baseline_logs
    base, (base_width,) = float(np.median(calm)), half_widths_of(batch_medians(calm))
    baseline_ms = math.exp(base) * 1e3
    anchor_ms = float(np.median(rounds.times_s[n])) * 1e3
    ratios = np.exp(found.corrected[:, :n] - anchor)
    latencies = []
    for index, model in enumerate(models):
        modes, width = model.relative, found.half_widths[index]
        ratio = math.exp(found.logs[index] - anchor)
        latency_ms = ratio * baseline_ms
        whole = math.exp(math.hypot(width, anchor_width, base_width))
        p50, p90, p99 = np.percentile(model.wall_s, [50, 90, 99]) * 1e3
        latency = Latency(
            device=device,
            fingerprint=fingerprint,
            inputs=model.inputs,
            latency_ms=latency_ms,
            low_ms=latency_ms / whole,
            high_ms=latency_ms * whole,
            ratio=ratio,
            ratio_low=ratio * math.exp(-width),
            ratio_high=ratio * math.exp(width),
            p50_ms=float(p50),
            p90_ms=float(p90),
            p99_ms=float(p99),
            rounds=len(ratios),
            runs=rounds.times_s[index].size,
            cv=float(np.std(ratios[:, index], ddof=1) / np.mean(ratios[:, index])),
            waited=model.waited,
            anchor_ms=anchor_ms,
            baseline_ms=baseline_ms,
            baseline_low_ms=baseline_ms * math.exp(-base_width),
            baseline_high_ms=baseline_ms * math.exp(base_width),
            warnings=(),
            ratios=ratios[:, index].copy(),
            counted=found.counted.copy(),
            times_ms=rounds.times_s[index] * 1e3,
            cost_s=cost_s,
            device_ms=latency_ms * modes[ON_DEVICE] if modes else None,
            end_to_end_ms=latency_ms * modes[END_TO_END] if modes else None,
            transfers=transfers if modes else None,
        )
        latencies.append(replace(latency, warnings=_warnings(latency, settings, baseline_path)))
    return latencies


def _warnings(latency: Latency, settings: MeasureSettings, baseline_path: str) -> tuple[str, ...]:
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
            not precise,
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


def middle_mean(values: Floats) -> Floats:
    """Return the mean of the middle half of values along the first axis.

    It is robust against interrupted kernels, and finer than a median of whole microseconds.
    """
    ordered = np.sort(values, axis=0)
    outer = len(values) // 4
    return np.asarray(ordered[outer : len(values) - outer].mean(axis=0), dtype=np.float64)


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
