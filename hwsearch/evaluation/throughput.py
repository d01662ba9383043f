"""Throughputs of models: each batch size is timed in a job of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hwsearch.devices import Device, Latency, MeasureSettings, with_batch
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.throughput import best_throughput, check_batch_sizes
from hwsearch.errors import DeviceError
from hwsearch.evaluation.measurements import (
    BATCH_LATENCY,
    THROUGHPUT,
    latency_measurement,
    ratio_measurement,
)
from hwsearch.evaluation.outliers import Pace
from hwsearch.trials import Measurement, Purpose

_KEPT = ("ratio", "ratio_low", "ratio_high", "device", "inputs", "warnings")  # of a latency


class ThroughputTimer:
    """Measures throughputs by the latencies of batches of each of several sizes."""

    def __init__(self, device: Device, sizes: Sequence[int]) -> None:
        self._device, self.sizes = device, check_batch_sizes(sizes)
        self._paces = {size: Pace() for size in sizes}

    @cached_property
    def _devices(self) -> dict[int, Device]:
        return {size: with_batch(self._device, size) for size in self.sizes}

    @cached_property
    def _contexts(self) -> dict[int, str]:
        return {
            n: f"{each.spec} {digest(each.fingerprint())}" for n, each in self._devices.items()
        }

    @property
    def own_batch(self) -> int:
        """Return the batch size of the device, whose latencies are those of the search."""
        return int(self._device.fingerprint()["batch"])

    @property
    def context(self) -> str:
        """Return what determines a throughput besides the architecture."""
        own = f"{self._device.spec} {digest(self._device.fingerprint())}"
        return f"{own} batches={','.join(map(str, self.sizes))}"

    def n_jobs(self, latencies: bool) -> int:
        """Return the number of jobs of a throughput, where ``latencies`` are measured or not."""
        return len(self.sizes) - (latencies and self.own_batch in self.sizes)

    def search(
        self,
        models: Mapping[str, Path],
        macs: Mapping[str, int],
        latencies: Mapping[str, Measurement | None],
        seed: int,
        settings: MeasureSettings,
    ) -> dict[str, Measurement | DeviceError]:
        """Time models at every batch size; return throughputs or errors.

        ``latencies`` are those that the search measured already, which are not measured again. A
        latency of a batch that is suspiciously low for its MACs is measured in a new process.
        """
        timed: dict[str, dict[int, Measurement]] = {key: {} for key in models}
        failed: dict[str, DeviceError] = {}
        for size in self.sizes:
            left = {key: path for key, path in models.items() if key not in failed}
            if size == self.own_batch:
                known = {key: m for key in left if (m := latencies.get(key)) is not None}
                for key, latency in known.items():
                    timed[key][size] = replace(latency, cost_s=0.0)
                left = {key: path for key, path in left.items() if key not in known}
            work = {key: size * macs[key] for key in left}
            found = self._plausible(left, work, size, seed, settings)
            for key, result in found.items():
                if isinstance(result, Latency):
                    timed[key][size] = self._of_batch(key, result, size, "search", "")
                else:
                    failed[key] = DeviceError(f"at batch {size}: {result}")
        return {
            key: failed.get(key) or _throughput(key, timed[key], self.context, "search")
            for key in models
        }

    def confirm(
        self,
        models: Mapping[str, Path],
        latencies: Mapping[str, Measurement],
        together: str,
        seed: int,
        settings: MeasureSettings,
    ) -> tuple[dict[str, Measurement | DeviceError], list[Measurement]]:
        """Time models together at every batch size, one job each.

        ``latencies`` are the confirmed ones of the device's own batch, empty if they are not
        measured; ``together`` names the set of models in contexts. Return throughputs or errors,
        and all that is to be stored.
        """
        timed: dict[str, dict[int, Measurement]] = {key: {} for key in models}
        failed: dict[str, DeviceError] = {}
        stored: list[Measurement] = []
        for size in self.sizes:
            if size == self.own_batch and latencies:
                for key, latency in latencies.items():
                    timed[key][size] = replace(latency, cost_s=0.0)
                continue
            left = {key: path for key, path in models.items() if key not in failed}
            for key, result in self._measure(left, size, seed, settings).items():
                if isinstance(result, Latency):
                    latency = self._of_batch(key, result, size, "confirm", together)
                    timed[key][size] = latency
                    stored += [latency, ratio_measurement(key, result, latency.context)]
                else:
                    failed[key] = DeviceError(f"at batch {size}: {result}")
        whole = {key: at for key, at in timed.items() if len(at) == len(self.sizes)}
        context = f"{self.context}{together}"
        found = {key: _throughput(key, at, context, "confirm") for key, at in whole.items()}
        return {**failed, **found}, [*stored, *found.values()]

    def _plausible(
        self,
        models: Mapping[str, Path],
        macs: Mapping[str, int],
        size: int,
        seed: int,
        settings: MeasureSettings,
    ) -> dict[str, Latency | DeviceError]:
        measured = self._measure(models, size, seed, settings)
        first = {key: got.latency_ms for key, got in measured.items() if isinstance(got, Latency)}
        suspects = self._paces[size].suspects(first, macs)
        again = {key: models[key] for key in suspects}
        for key, result in self._measure(again, size, seed + 2, settings).items():
            measured[key] = result
            if isinstance(result, Latency):
                self._paces[size].believe(result.latency_ms, macs[key])
        return measured

    def _measure(
        self, models: Mapping[str, Path], size: int, seed: int, settings: MeasureSettings
    ) -> dict[str, Latency | DeviceError]:
        if not models:
            return {}
        return self._devices[size].measure(models, seed=seed, settings=settings)

    def _of_batch(
        self, key: str, latency: Latency, size: int, purpose: Purpose, together: str
    ) -> Measurement:
        context = f"{self._contexts[size]}{together}"
        return replace(latency_measurement(key, latency, context, purpose), quantity=BATCH_LATENCY)


def _throughput(
    key: str, timed: Mapping[int, Measurement], context: str, purpose: Purpose
) -> Measurement:
    """Return the throughput of a model that was timed at every batch size.

    Its detail ``at`` has batch size -> throughput, quantity and context of the latency that it is
    computed from, and what is kept of that.
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
    ratios = {name: timed[best.batch].details[name] for name in _KEPT[:3]}
    return Measurement(
        key=key,
        quantity=THROUGHPUT,
        context=context,
        purpose=purpose,
        value=best.value,
        low=best.low,
        high=best.high,
        count=timed[best.batch].count,
        cost_s=sum(each.cost_s for each in timed.values()),
        details={"best_batch": best.batch, **ratios, "at": at},
    )


def _interval(latency: Measurement) -> tuple[float, float]:
    low, high = latency.low, latency.high
    return latency.value if low is None else low, latency.value if high is None else high
