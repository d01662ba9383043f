"""Device for tests: latencies come from a function instead of a clock."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.base import Fingerprint, Latency, MeasureSettings, Progress
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.model_check import refusal
from hwsearch.devices.runtime import Feeds
from hwsearch.devices.spec import DeviceFactory
from hwsearch.errors import DeviceError

LatencyOf = Callable[[str, Path], float]
"""``latency_of(name, path)`` returns milliseconds, or raises `DeviceError` for a failing model."""

_ROUNDS, _RUNS = 16, 3
_SPREAD = 0.005


BATCH_EXPONENT = 0.8  # of the latency: a batch of 16 takes 9.2 times as long as one sample


def latency_by_size(name: str, path: Path) -> float:
    """Return 0.1 ms plus 1 ms per 100,000 bytes of the file."""
    size = path.stat().st_size if path.is_file() else 0
    if size == 0:
        raise DeviceError(f"{path} is missing or empty")
    return 0.1 + size / 1e5


class FakeDevice:
    """Returns scripted latencies, the same every time; see `hwsearch.devices.base.Device`.

    Intervals are half a percent wide on either side, and the anchor takes 1 ms, so that ratios and
    milliseconds are equal. Outputs are computed by ``ort-cpu``. ``latency_of`` maps name and file
    to ms, for one sample. With a ``job_spread`` all latencies of one call of `measure` have a
    common factor, whose logarithm has this standard deviation and follows from the names of the
    models and the batch size.
    """

    def __init__(
        self,
        latency_of: LatencyOf = latency_by_size,
        *,
        name: str = "scripted",
        precision: str = "fp32",
        job_spread: float = 0.0,
        batch: int = 1,
    ) -> None:
        self._latency_of = latency_of
        self.precision, self._job_spread = precision, job_spread
        self._name, self.batch = name, batch
        self.spec = self.slug = name if batch == 1 else f"{name}:batch={batch}"
        self._runner: Any = None

    def fingerprint(self) -> Fingerprint:
        """Return a constant fingerprint."""
        script = getattr(self._latency_of, "__qualname__", type(self._latency_of).__name__)
        return {
            "cpu": "scripted",
            "runtime": "none",
            "script": hashlib.sha256(script.encode()).hexdigest()[:12],
            "threads": 1,
            "batch": self.batch,
            "precision": self.precision,
        }

    def with_batch(self, batch: int) -> "FakeDevice":
        """Return the same device with another batch size."""
        return FakeDevice(
            self._latency_of,
            name=self._name,
            precision=self.precision,
            job_spread=self._job_spread,
            batch=batch,
        )

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Return the scripted latencies; see `hwsearch.devices.base.Device.measure`."""
        results: dict[str, Latency | DeviceError] = {}
        job = "+".join(sorted(models)) + ("" if self.batch == 1 else f" at {self.batch}")
        seed_of_job = zlib.crc32(job.encode())
        shift = np.random.default_rng(seed_of_job).normal(0.0, self._job_spread)
        for name, path in models.items():
            try:
                if error := refusal(path, self.spec, self.precision):
                    raise error
                of_one = float(self._latency_of(name, path)) * float(np.exp(shift))
                results[name] = self._latency(of_one * self.batch**BATCH_EXPONENT)
            except DeviceError as error:
                results[name] = error
        if progress is not None:
            progress(_ROUNDS, _SPREAD)
        return results

    def run(self, model: Path, batches: Iterable[Feeds]) -> Iterator[list[NDArray[Any]]]:
        """Run a model on ``ort-cpu``; see `hwsearch.devices.base.Device.run`."""
        from hwsearch.devices.ort_cpu import OrtCpu

        if self._runner is None:
            self._runner = OrtCpu()
            self._runner.precision = self.precision  # the CPU computes fp16 files too
        yield from self._runner.run(model, batches)

    def close(self) -> None:
        """End the process that computes outputs."""
        if self._runner is not None:
            self._runner.close()

    def _latency(self, latency_ms: float) -> Latency:
        if not (np.isfinite(latency_ms) and latency_ms > 0):
            raise DeviceError(f"the latency is {latency_ms} ms; it must be positive and finite")
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
            p50_ms=latency_ms,
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


DEVICE = DeviceFactory(name="scripted", create=FakeDevice, available=lambda: None)
