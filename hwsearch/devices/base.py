"""Interface of devices: measurement, profiling, inference, their settings and results."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.runtime import Feeds
from hwsearch.errors import DeviceError, InputError

Fingerprint = dict[str, str | int]
Progress = Callable[[int, float], None]
"""``progress(n_rounds, half_width)`` after each round, with the largest relative half-width at the
last check of the stopping rule, NaN before the first one."""
MIN_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """Precision and time limits of a benchmark.

    Attributes:
        half_width: Requested half-width of every model's 95% ratio interval, in logarithms.
        seconds_per_model: Time limit of the rounds, multiplied by the number of models.
        first_look: Number of rounds at the first check of the stopping rule, which doubles for
            each further check: checking after every round would stop at chance minima.
        burst_s: Approximate duration of the counted runs of one model's turn.
        warmup_floor_s, warmup_ceiling_s: Shortest warm-up, and longest, steady or not.
        hang_s: Time beyond the usual duration of a burst after which the runtime counts as hung.

    Raises:
        InputError: A value is out of its range.
    """

    half_width: float = 0.015
    seconds_per_model: float = 3.0
    first_look: int = 32
    burst_s: float = 0.003
    warmup_floor_s: float = 0.3
    warmup_ceiling_s: float = 2.0
    hang_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("half_width", "seconds_per_model", "burst_s", "hang_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, not {value!r}")
        if self.first_look < MIN_ROUNDS:
            raise InputError(f"first_look must be at least {MIN_ROUNDS}, not {self.first_look!r}")
        if not 0 <= self.warmup_floor_s <= self.warmup_ceiling_s < np.inf:
            raise InputError(
                "warm-up needs 0 <= warmup_floor_s <= warmup_ceiling_s, not "
                f"{self.warmup_floor_s!r} and {self.warmup_ceiling_s!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latency:
    """Undisturbed latency of one model on one device.

    It is the median over rounds of the tenth percentile of a turn's runs, without the effect of
    the round, which all models of the job and two anchors tell, in the rounds that other work does
    not slow. Compare models of one job by ``ratio``, whose interval is that of such a comparison.
    Compare limits with milliseconds: the ratio times the anchor's baseline, its time on this
    device when the baseline was measured.

    Attributes:
        device: Spec of the device.
        fingerprint: Digest of the device's fingerprint.
        inputs: Names, types and shapes of the inputs.
        latency_ms: Ratio x baseline.
        low_ms, high_ms: Its 95% interval, with the uncertainty of the anchor and its baseline.
        ratio: Time relative to the anchor's: the median of ``ratios`` over the counted rounds.
        ratio_low, ratio_high: Its 95% interval among the models of the same job: the anchor's own
            uncertainty, which shifts all of them alike, is not in it.
        p50_ms, p90_ms, p99_ms: Percentiles of single runs as they were, waiting included; None if
            it was measured before these were recorded.
        cv: Coefficient of variation of ``ratios``.
        waited: Share of the wall time without a CPU, which is not in the times; None where the
            system does not tell it.
        anchor_ms: Median time of the anchor in this benchmark.
        baseline_ms: Baseline of the anchor.
        baseline_low_ms, baseline_high_ms: Its 95% interval.
        warnings: Reasons for doubt and remedies, one sentence each.
        ratios: (rounds,) time relative to the anchor's, without the effect of the round.
        counted: (rounds,) whether the round was undisturbed; None for all.
        times_ms: (rounds, runs per round) running times, not scaled to the baseline.
        cost_s: Share of this model in the duration of the benchmark.
        device_ms: Median time with inputs and outputs in the device's memory. This and the next
            two are None where the device is the processor.
        end_to_end_ms: Median time including the copies of inputs and outputs.
        transfers: Which of the two ``latency_ms`` is: "excluded" or "included".
    """

    device: str
    fingerprint: str
    inputs: str
    latency_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    p90_ms: float
    p99_ms: float
    rounds: int
    runs: int
    cv: float
    waited: float | None
    anchor_ms: float
    baseline_ms: float
    baseline_low_ms: float
    baseline_high_ms: float
    warnings: tuple[str, ...]
    ratios: NDArray[np.float64]
    times_ms: NDArray[np.float64]
    cost_s: float
    device_ms: float | None = None
    end_to_end_ms: float | None = None
    transfers: str | None = None
    p50_ms: float | None = None
    counted: NDArray[np.bool_] | None = None

    @property
    def undisturbed(self) -> float:
        """Return the share of the rounds that count."""
        return 1.0 if self.counted is None else float(self.counted.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times of the nodes of one model on one device.

    Attributes:
        nodes_ms: Mean kernel time over the middle half of the runs, by the runtime's name of each
            node of the optimised graph, in the order of execution.
        total_ms: Mean time of a run with profiling, which itself takes time.
    """

    nodes_ms: Mapping[str, float]
    total_ms: float


class Device(Protocol):
    """A runtime on a processor with its settings, on which models are timed and run.

    A device may also be `Profiling` and `SharedInference`.

    Attributes:
        spec: Canonical spec, such as ``ort-cpu:threads=1``.
        slug: The same for file names, such as ``ort-cpu-threads1``.
        precision: Precision of the files that it accepts, one of
            `hwsearch.models.onnx_file.PRECISIONS`; "mixed" for all of them, or "bf16" where it
            computes float32 files in bfloat16. Part of the fingerprint.
    """

    spec: str
    slug: str
    precision: str

    def fingerprint(self) -> Fingerprint:
        """Return all properties that affect latency, by name."""

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings = ...,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Time models, ONNX files by name, against each other in one process of their own.

        ``seed`` sets the order of turns; ``progress`` is called after each round.

        Returns:
            For each model in order its latency, or the error. A model that is refused, crashes or
            hangs does not affect the others.
        """

    def run(self, model: Path, batches: Iterable[Feeds]) -> Iterator[list[NDArray[Any]]]:
        """Run an ONNX file on all CPUs and yield its outputs batch by batch.

        Batches are input arrays by name, taken one at a time.

        Raises:
            DeviceError: The runtime refused the model or a batch, crashed or hung.
        """

    def close(self) -> None:
        """End background processes; the device can be used again afterwards."""


@runtime_checkable
class Profiling(Protocol):
    """A device that can time the nodes of a model."""

    def profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models, which take turns for ``runs`` counted runs in one process.

        Returns:
            For each model in order its profile, or the error.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedOutputs:
    """Outputs of several models on one batch.

    Attributes:
        outputs: Outputs of each model by its name, or the error.
        shares: Share of each model in the computing time, summing to 1; the time of a shared
            prefix is divided equally.
    """

    outputs: Mapping[str, list[NDArray[Any]] | DeviceError]
    shares: Mapping[str, float]


@runtime_checkable
class SharedInference(Protocol):
    """A device that runs a common prefix of several models once."""

    def run_shared(
        self, models: Mapping[str, Path], batches: Iterable[Feeds]
    ) -> Iterator[SharedOutputs]:
        """Run ONNX files that take the same inputs, and yield their outputs batch by batch.

        Outputs equal those of each model by itself, bit by bit.

        Raises:
            DeviceError: The runtime crashed or hung.
        """
