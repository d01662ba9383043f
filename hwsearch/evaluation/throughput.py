"""Throughputs of models, computed from the latencies of batches of several sizes."""

from collections.abc import Mapping
from typing import Any

from hwsearch.devices.throughput import best_throughput
from hwsearch.evaluation.measurements import THROUGHPUT
from hwsearch.trials import Measurement, Purpose

_RATIOS = ("ratio", "ratio_low", "ratio_high")
# Of the details of a latency.
_KEPT = (*_RATIOS, "device", "inputs", "warnings", "weights", "measured_ms")


def throughput_measurement(
    key: str, timed: Mapping[int, Measurement], context: str, purpose: Purpose
) -> Measurement:
    """Return the throughput of a model from batch size -> latency of a batch.

    Its detail ``at`` has batch size -> throughput, quantity and context of the latency that it is
    computed from, and what is kept of that. Its cost is that of the latencies, and counted there.
    """
    best = best_throughput({n: (m.value, *_interval(m)) for n, m in timed.items()})
    at: dict[str, dict[str, Any]] = {
        str(size): {
            "throughput": best.at[size],
            "latency_ms": each.value,
            "quantity": each.quantity,
            "context": each.context,
            **{name: each.details[name] for name in _KEPT if name in each.details},
        }
        for size, each in timed.items()
    }
    ratios = {name: timed[best.batch].details[name] for name in _RATIOS}
    return Measurement(
        key=key,
        quantity=THROUGHPUT,
        context=context,
        purpose=purpose,
        value=best.value,
        low=best.low,
        high=best.high,
        count=timed[best.batch].count,
        cost_s=0.0,
        details={"best_batch": best.batch, **ratios, "at": at},
    )


def _interval(latency: Measurement) -> tuple[float, float]:
    low, high = latency.low, latency.high
    return latency.value if low is None else low, latency.value if high is None else high
