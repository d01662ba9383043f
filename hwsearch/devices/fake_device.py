"""A device without a clock: latencies come from a function, so that searches can be tested."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.base import DeviceFactory, Fingerprint, Latency, canonical_spec
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.model_check import wrong_precision
from hwsearch.devices.protocol import MeasureSettings, Progress
from hwsearch.errors import DeviceError

LatencyOf = Callable[[str, Path], float]
"""``latency_of(name, path)`` in milliseconds; may raise `DeviceError` for a model that fails."""

_ROUNDS, _RUNS = 16, 3
_SPREAD = 0.005


def latency_by_size(name: str, path: Path) -> float:  # noqa: ARG001 - any LatencyOf takes both
    """0.1 ms and another for each 100,000 bytes of the file.

    Raises:
        DeviceError: There is no such file, or it is empty.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size == 0:
        raise DeviceError(f"{path} is missing or empty")
    return 0.1 + size / 1e5


class FakeDevice:
    """Answers with scripted latencies, the same every time; see `hwsearch.devices.base.Device`.

    Intervals are half a percent wide on either side, and the anchor takes 1 ms, so that ratios
    and milliseconds are the same numbers. Outputs are real: ``ort-cpu`` computes them.

    Args:
        latency_of: The latency of a model, by name and file.
        name: The device's name in specs.
        precision: Of the files that it runs.
    """

    def __init__(
        self,
        latency_of: LatencyOf = latency_by_size,
        *,
        name: str = "scripted",
        precision: str = "fp32",
    ) -> None:
        self._latency_of = latency_of
        self.precision = precision
        self.spec, self.slug = canonical_spec(name, (), {})
        self._answers: Any = None

    def fingerprint(self) -> Fingerprint:
        """Constant."""
        script = getattr(self._latency_of, "__qualname__", type(self._latency_of).__name__)
        name = hashlib.sha256(script.encode()).hexdigest()[:12]
        settings: Fingerprint = {
            "script": name,
            "threads": 1,
            "batch": 1,
            "precision": self.precision,
        }
        return {"cpu": "scripted", "runtime": "none", **settings}

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,  # noqa: ARG002 - a scripted latency has no luck in it
        settings: MeasureSettings | None = None,  # noqa: ARG002
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Look latencies up; see `hwsearch.devices.base.Device.measure`."""
        results: dict[str, Latency | DeviceError] = {}
        for name, path in models.items():
            try:
                if wrong := wrong_precision(path, self.spec, self.precision):
                    raise wrong
                results[name] = self._latency(float(self._latency_of(name, path)))
            except DeviceError as error:
                results[name] = error
        if progress is not None:
            progress(_ROUNDS, _SPREAD)
        return results

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model for real on ``ort-cpu``; see `hwsearch.devices.base.Device.run`."""
        from hwsearch.devices.ort_cpu import OrtCpu

        if self._answers is None:
            self._answers = OrtCpu(precision=self.precision)
        yield from self._answers.run(model, batches)

    def close(self) -> None:
        """End the process that computes outputs."""
        if self._answers is not None:
            self._answers.close()

    def _latency(self, latency_ms: float) -> Latency:
        if not (np.isfinite(latency_ms) and latency_ms > 0):
            raise DeviceError(
                f"the script gives {latency_ms} ms; a latency is positive and finite"
            )
        low, high = latency_ms * (1 - _SPREAD), latency_ms * (1 + _SPREAD)
        return Latency(
            device=self.spec,
            fingerprint=digest(self.fingerprint()),
            inputs="",
            latency_ms=latency_ms,
            low_ms=low,
            high_ms=high,
            ratio=latency_ms,
            ratio_low=low,
            ratio_high=high,
            p90_ms=latency_ms,
            p99_ms=latency_ms,
            rounds=_ROUNDS,
            runs=_ROUNDS * _RUNS,
            cv=0.0,
            waited=None,
            anchor_ms=1.0,
            baseline_ms=1.0,
            baseline_low_ms=1.0,
            baseline_high_ms=1.0,
            warnings=(),
            ratios=np.full(_ROUNDS, latency_ms),
            times_ms=np.full((_ROUNDS, _RUNS), latency_ms),
            cost_s=0.0,
        )


def fake_factory(
    latency_of: LatencyOf = latency_by_size, *, name: str = "scripted"
) -> DeviceFactory:
    """Make an entry point's object for a scripted device.

    Args:
        latency_of: The latency of a model, by name and file.
        name: The device's name in specs.
    """
    return DeviceFactory(
        name=name,
        create=lambda: FakeDevice(latency_of, name=name),
        available=lambda: None,
    )


DEVICE = fake_factory()
