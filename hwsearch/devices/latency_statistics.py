"""Latency estimates from the rounds of a benchmark: medians, intervals and warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsearch.devices.base import Latency
from hwsearch.devices.intervals import Floats, median_draws, percentile_interval
from hwsearch.devices.protocol import MeasureSettings, Rounds
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE

CV_LIMIT = 0.025
DRIFT_LIMIT = 0.10
SHORT_MS = 0.1
WAITED_LIMIT = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """The device of a benchmark and the anchor's baseline on it.

    Attributes:
        fingerprint: Digest of its fingerprint.
        baseline_s: (n_bursts,) median burst times of the anchor's baseline.
        transfers: Whether copies are "excluded" or "included"; None where there are none.
    """

    device: str
    fingerprint: str
    baseline_s: Floats
    baseline_path: str
    transfers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedModel:
    """Records of one model in a benchmark besides its times.

    Attributes:
        inputs: Names, types and shapes of its inputs.
        waited: Share of the wall time spent waiting for a CPU; None where it is not recorded.
        relative: Time in each mode of a device with its own memory, relative to the latency's
            mode; empty for other devices.
    """

    inputs: str
    waited: float | None
    relative: Mapping[str, float] = field(default_factory=dict)


def estimate_latencies(
    rounds: Rounds,
    models: Sequence[TimedModel],
    device: DeviceRecord,
    *,
    rng: np.random.Generator,
    settings: MeasureSettings,
    cost_s: float,
) -> list[Latency]:
    """Estimate the latency of each model, in the order of their times.

    ``cost_s`` is the duration of the benchmark per model.
    """
    ratios, bursts = rounds.ratios(), rounds.bursts_s()
    counted = rounds.counted()
    middle, ratio_draws = rounds.medians(rng)
    baseline_draws = median_draws(device.baseline_s[:, None], rng)
    low, high = percentile_interval(ratio_draws)
    widths = (high - low) / 2 / middle
    low_s, high_s = percentile_interval(ratio_draws * baseline_draws)
    base_low, base_high = percentile_interval(baseline_draws)
    baseline_ms = float(np.median(device.baseline_s)) * 1e3
    anchor_ms = float(np.median(bursts[:, -1])) * 1e3
    latencies = []
    for index, model in enumerate(models):
        times, modes = rounds.times_s[index], model.relative
        latency_ms = float(middle[index]) * baseline_ms
        scaled_ms = times / bursts[:, -1:] * baseline_ms
        p90, p99 = np.percentile(scaled_ms, [90, 99])
        cv = float(np.std(ratios[:, index], ddof=1) / np.mean(ratios[:, index]))
        latencies.append(
            Latency(
                device=device.device,
                fingerprint=device.fingerprint,
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
                warnings=(
                    *_noise_warnings(cv, float(np.median(times)) * 1e3, model.waited),
                    *_width_warnings(rounds, len(ratios), float(widths[index]), settings),
                    *_drift_warnings(anchor_ms, baseline_ms, device.baseline_path),
                ),
                ratios=ratios[:, index].copy(),
                counted=counted[:, index].copy(),
                times_ms=times * 1e3,
                cost_s=cost_s,
                device_ms=latency_ms * modes[ON_DEVICE] if modes else None,
                end_to_end_ms=latency_ms * modes[END_TO_END] if modes else None,
                transfers=device.transfers if modes else None,
            )
        )
    return latencies


def _noise_warnings(cv: float, typical_ms: float, waited: float | None) -> list[str]:
    found = []
    if cv > CV_LIMIT:
        found.append(
            f"rounds differ by {cv:.1%} (more than {CV_LIMIT:.1%}) because other work shares "
            "these cores or their clock changes: stop that work, or fix the clock's governor"
        )
    if typical_ms < SHORT_MS:
        found.append(
            f"one run takes {typical_ms:.3g} ms, of which calling the runtime is a noticeable "
            f"part (below {SHORT_MS:g} ms): measure with a larger batch"
        )
    if waited is not None and waited > WAITED_LIMIT:
        found.append(
            f"other work had the CPU for {waited:.0%} of the time, which is taken out, though not "
            "what it did to the caches: stop that work to be sure"
        )
    return found


def _width_warnings(
    rounds: Rounds, n_rounds: int, width: float, settings: MeasureSettings
) -> list[str]:
    if rounds.wanted or (width <= settings.half_width and n_rounds >= settings.first_look):
        return []
    return [
        f"time ran out after {n_rounds} rounds with an interval of ±{width:.1%} where "
        f"±{settings.half_width:.1%} was wanted, because this machine is noisy or the model slow: "
        f"raise seconds_per_model (now {settings.seconds_per_model:g})"
    ]


def _drift_warnings(anchor_ms: float, baseline_ms: float, baseline_path: str) -> list[str]:
    drift = anchor_ms / baseline_ms - 1
    if abs(drift) <= DRIFT_LIMIT:
        return []
    if drift > 0:
        return [
            f"the anchor took {drift:.0%} longer than its baseline because this machine is busier "
            "or slower now: rankings hold, and milliseconds are those of the calmer time"
        ]
    return [
        f"the anchor was {-drift:.0%} faster than its baseline, which was taken on a busier "
        f"machine: delete {baseline_path} to have it taken again, as milliseconds are too high now"
    ]
