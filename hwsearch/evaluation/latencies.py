"""Timing of models for a search and its front, as measurements of the store."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from hwsearch.devices import Device, Latency, MeasureSettings
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, EvaluationError
from hwsearch.evaluation.measurements import latency_measurement, ratio_measurement
from hwsearch.evaluation.outliers import Pace
from hwsearch.space import Architecture
from hwsearch.trials import Measurement

TILE = "a repeated tile in the same graph"  # times do not differ
# Coarser than what is reported: the surrogates average over trials, and the front is timed again.
SEARCH = MeasureSettings(half_width=0.03, seconds_per_model=1.0)


class LatencyTimer:
    """Times models on one device.

    Args:
        device: Times them.
        seed: Seed of the order in which models take turns.
        check: Receives every result of the device; raises if the device is lost.

    Attributes:
        context: What determines a latency besides the architecture.
        pace: Pace of the accepted latencies.
    """

    def __init__(
        self, device: Device, seed: int, check: Callable[[Iterable[object]], None]
    ) -> None:
        self._device, self._seed, self._check = device, seed, check
        self.context = f"{device.spec} {digest(device.fingerprint())}"
        self.pace = Pace()

    def search(
        self,
        models: Mapping[Architecture, Path],
        macs: Mapping[Architecture, int],
        repeated: Collection[Architecture],
    ) -> dict[Architecture, Measurement | EvaluationError]:
        """Time models with the settings of a search.

        A suspiciously low latency (`hwsearch.evaluation.outliers`) is replaced by one from a new
        process. ``repeated`` are the architectures whose files have repeated weights.
        """
        if not models:
            return {}
        named = {arch.key: model for arch, model in models.items()}
        macs_of = {arch.key: macs[arch] for arch in models}
        measured = self._device.measure(named, seed=self._seed, settings=SEARCH)
        self._check(measured.values())
        first = {k: got.latency_ms for k, got in measured.items() if isinstance(got, Latency)}
        suspects = self.pace.suspects(first, macs_of)
        if suspects:
            again = {key: named[key] for key in suspects}
            measured |= self._device.measure(again, seed=self._seed + 2, settings=SEARCH)
            self._check(measured.values())
        found: dict[Architecture, Measurement | EvaluationError] = {}
        for arch in models:
            latency = measured[arch.key]
            if not isinstance(latency, Latency):
                found[arch] = latency
                continue
            details: dict[str, float | str] = {}
            if arch.key in suspects:
                details["suspected_ms"] = first[arch.key]
                self.pace.believe(latency.latency_ms, macs[arch])
            if arch in repeated:
                details["weights"] = TILE
            found[arch] = latency_measurement(arch.key, latency, self.context, "search", **details)
        return found

    def together(self, keys: Iterable[str]) -> str:
        """Return the context of latencies that are confirmed together, which names their set."""
        text = "+".join(sorted(keys))
        return f"{self.context} together={hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def confirm(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> tuple[list[Measurement], dict[str, Measurement | DeviceError]]:
        """Time models together, in a separate process.

        Returns:
            The measurements to store, with the ratios of every round; and key -> the confirmed
            latency or the error.
        """
        context = self.together(models)
        measured = self._device.measure(models, seed=self._seed + 1, settings=settings)
        self._check(measured.values())
        results: dict[str, Measurement | DeviceError] = {}
        ratios = []
        for key, latency in measured.items():
            if isinstance(latency, Latency):
                results[key] = latency_measurement(key, latency, context, "confirm")
                ratios.append(ratio_measurement(key, latency, context))
            else:
                results[key] = latency
        confirmed = [each for each in results.values() if isinstance(each, Measurement)]
        return [*confirmed, *ratios], results
