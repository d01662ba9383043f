"""Results of devices and metrics as measurements of the store."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import Metric, mean_interval, paired_difference
from hwsearch.accuracy.scoring import Scored
from hwsearch.accuracy.task import Task
from hwsearch.devices import Latency
from hwsearch.trials import Measurement, Purpose

LATENCY, RATIO, THROUGHPUT = "latency", "latency_ratio", "throughput"
BATCH_LATENCY = "batch_latency"  # of another batch than the device's own, for a throughput
REPEATED_WEIGHTS = "a repeated tile in the same graph"  # a detail; times do not differ
RAW_TIMES_KEPT = 2000
LATENCY_DETAILS = (
    "device", "fingerprint", "inputs", "ratio", "ratio_low", "ratio_high", "p50_ms", "p90_ms",
    "p99_ms", "rounds", "runs", "undisturbed", "cv", "waited", "anchor_ms", "baseline_ms",
    "baseline_low_ms", "baseline_high_ms", "device_ms", "end_to_end_ms", "transfers", "warnings",
)  # fmt: skip


def latency_measurement(
    key: str, latency: Latency, context: str, purpose: Purpose, **details: float | str
) -> Measurement:
    """Convert a latency of a device to a measurement, with further details."""
    raw: NDArray[Any] = latency.times_ms.reshape(-1)[-RAW_TIMES_KEPT:].astype(np.float32)
    return Measurement(
        key=key,
        quantity=LATENCY,
        context=context,
        purpose=purpose,
        value=latency.latency_ms,
        low=latency.low_ms,
        high=latency.high_ms,
        count=latency.runs,
        cost_s=latency.cost_s,
        samples=raw if raw.size else None,
        details={name: getattr(latency, name) for name in LATENCY_DETAILS} | details,
    )


def score_measurement(
    key: str, scored: Scored, metric: Metric, context: str, purpose: Purpose
) -> Measurement:
    """Convert the unscaled outcomes of samples to their scaled mean with its 95% interval."""
    value, *ends = (each * metric.scale for each in mean_interval(scored.outcomes))
    return Measurement(
        key=key,
        quantity=metric.name,
        context=context,
        purpose=purpose,
        value=value,
        low=min(ends),
        high=max(ends),
        count=len(scored.outcomes),
        cost_s=scored.cost_s,
        samples=scored.outcomes,
    )


def score_measurements(
    key: str, scored: Scored, task: Task, context: str, purpose: Purpose
) -> list[Measurement]:
    """Convert the outcomes of all metrics of a task; the cost is counted once."""
    found = [score_measurement(key, scored, task.metric, context, purpose)]
    for metric in task.beside:
        beside = Scored(outcomes=scored.beside[metric.name], cost_s=0.0)
        found.append(score_measurement(key, beside, metric, context, purpose))
    return found


def ratio_measurement(key: str, latency: Latency, context: str) -> Measurement:
    """Return a confirmed latency relative to the anchor's, with the ratios of all rounds.

    Its samples, ``(rounds,)``, are NaN in excluded rounds. Contenders of one job share their
    rounds, which gives their differences more precisely than their intervals do.
    """
    counted = True if latency.counted is None else latency.counted
    return Measurement(
        key=key,
        quantity=RATIO,
        context=context,
        purpose="confirm",
        value=latency.ratio,
        low=latency.ratio_low,
        high=latency.ratio_high,
        count=latency.rounds,
        cost_s=0.0,  # that of the latency
        samples=np.where(counted, latency.ratios, np.nan).astype(np.float32),
    )


def noisy_best(measurement: Measurement) -> float:
    """Return a latency or throughput at the good end of its ratio's interval, as for ranking."""
    value, details = measurement.value, measurement.details
    low = details["ratio_low"] / details["ratio"]  # of the latency
    return float(value / low if measurement.quantity == THROUGHPUT else value * low)


def shipped_scores(
    measurements: Iterable[Measurement], metric: str, direction: str
) -> dict[str, Measurement]:
    """Return key -> score on the search samples of the model that ships.

    That is the refined model, whose scores have the purpose ``confirm``, where it is better.
    """
    found: dict[str, Measurement] = {}
    sign = 1.0 if direction == "max" else -1.0
    for each in measurements:
        if each.quantity != metric or each.purpose not in ("search", "confirm"):
            continue
        known = found.get(each.key)
        if known is None or sign * each.value > sign * known.value:
            found[each.key] = each
    return found


def paired_scores(
    a: Measurement | None, b: Measurement | None
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Return the score of ``a`` less that of ``b`` with its 95% interval, paired over images.

    All three are None if either was not scored or its outcomes are unknown.
    """
    if a is None or b is None or a.samples is None or b.samples is None:
        return None, None, None
    means = (float(samples.astype(np.float64).mean()) for samples in (a.samples, b.samples))
    scores = zip((a.value, b.value), means, strict=True)
    scale = next((value / mean for value, mean in scores if mean), 1.0)
    points, low, high = paired_difference(a.samples, b.samples, scale)
    return float(points), float(low), float(high)
