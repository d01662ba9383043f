"""Values of a batch of architectures: from the store where they are known, else measured."""

import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.devices import Device, Latency, MeasureSettings
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DataError, DeviceError, EvaluationError
from hwsearch.evaluate.recalibrate import recalibrate
from hwsearch.evaluate.score import Score, score_outputs
from hwsearch.evaluate.task import CALIBRATION_BATCH, SplitSamples, Task
from hwsearch.export.artifact import Exported
from hwsearch.export.model import to_onnx
from hwsearch.files import write_atomic
from hwsearch.kit.tile import tiled
from hwsearch.objectives import Estimate
from hwsearch.run.conversion import Conversion
from hwsearch.run.suspicion import Pace
from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet
from hwsearch.trials import Measurement, Purpose, Store

LATENCY, RATIO = "latency", "latency_ratio"
TILE = "a repeated tile in the same graph"  # times do not differ
REUSED = "reused"  # origin of trials that an earlier run had; a detail of its measurements
SCORE_BATCH = 125
RAW_TIMES_KEPT = 2000
# Coarser than what is reported: the surrogates average over trials, and the front is timed again.
SEARCH = MeasureSettings(half_width=0.03, seconds_per_model=1.0)
LATENCY_DETAILS = (
    "device",
    "fingerprint",
    "inputs",
    "ratio",
    "ratio_low",
    "ratio_high",
    "p90_ms",
    "p99_ms",
    "rounds",
    "runs",
    "undisturbed",
    "cv",
    "waited",
    "anchor_ms",
    "baseline_ms",
    "baseline_low_ms",
    "baseline_high_ms",
    "device_ms",
    "end_to_end_ms",
    "transfers",
    "warnings",
)


Values = dict[str, float | Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A subnet's model, ready to be scored and timed.

    Attributes:
        path: The file.
        cost_s: Seconds that building it took, recalibration included.
        calibrated: Calibration samples that were run for it, shared ones in part.
    """

    path: Path
    cost_s: float
    calibrated: float


class Racing(Protocol):
    """Scores candidates as far as needed; see `hwsearch.run.race.Race`."""

    def scores(
        self, ready: Mapping[Architecture, Prepared]
    ) -> Mapping[Architecture, float | Estimate | EvaluationError]:
        """Score candidates whose latencies are known, and remember it."""
        ...

    def dropped(self, key: str) -> Estimate | None:
        """Return the estimate of what a candidate would have scored, if it was dropped."""
        ...


class Evaluator:
    """Measures architectures on one device and one task, and remembers in one store.

    Args:
        net: The supernet.
        device: Times models and runs them.
        task: Data and metric.
        store: Holds what is known; every value measured is added to it.
        seed: Decides the order in which models take turns.
    """

    def __init__(
        self, net: Supernet, device: Device, task: Task, store: Store, seed: int = 0
    ) -> None:
        self.net, self.device, self.task, self.store, self.seed = net, device, task, store, seed
        self._calibration = task.calibration if net.recalibrate else None
        self.calibration_digest: str | None = None
        if self._calibration is not None:
            self.calibration_digest = self._calibration.digest
        self.latency_context = f"{device.spec} {digest(device.fingerprint())}"
        self._pace = Pace()
        self._tiled: set[str] = set()  # keys whose latency is that of other weights
        self._convert = Conversion(net, device, task)

    def score_context(self, samples: SplitSamples) -> str:
        """Say what decides a score besides the architecture."""
        calibration, batch = self.calibration_digest or "none", self.task.calibration_batch
        if self.calibration_digest and batch != CALIBRATION_BATCH:
            calibration += f"/{batch}"
        return (
            f"weights={self.net.digest[:16]} calibration={calibration} "
            f"samples={len(samples)}@{samples.digest} onnx {self._convert.context}"
        )

    def remembered(self, key: str, quantity: str) -> Measurement | None:
        """Return what the search knows of an architecture, if it does."""
        context = self.latency_context
        if quantity != LATENCY:
            context = self.score_context(self.task.search)
        return self.store.find(key, quantity, context, "search")

    def build(self, arch: Architecture) -> Exported:
        """Return the recalibrated subnet and its ONNX model, of the device's precision.

        Raises:
            EvaluationError: The subnet cannot be built, recalibrated, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        with _as_failure():
            subnet = self.net.subnet(arch)
            recalibrate(subnet, self.net.recalibrate, self._calibration_batches(arch))
            fp32 = to_onnx(self.net, arch, subnet, calibration=self.calibration_digest)
            model = self._convert(arch, fp32)
        original = None if model is fp32 else fp32
        return Exported(arch=arch, subnet=subnet, model=model, original=original)

    def model_of(self, arch: Architecture) -> onnx.ModelProto:
        """Return the model of an architecture: without data, one of which only the time counts.

        Raises:
            EvaluationError: As for `build`.
            DataError: The same.
        """
        return self.build(arch).model if self.task.scores else self.model_to_time(arch)

    def model_to_time(self, arch: Architecture) -> onnx.ModelProto:
        """Return a model that takes the time of the built one, without its statistics.

        Weights do not decide how long a graph takes; see `hwsearch.kit.tile`. An int8 file gets
        its ranges from the calibration samples all the same.

        Raises:
            EvaluationError: The subnet cannot be built, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        if self.device.precision == "int8":
            return self.build(arch).model
        with _as_failure():
            return self._convert(arch, tiled(to_onnx(self.net, arch)))

    def _calibration_batches(self, arch: Architecture) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the inputs anew for every subnet: preprocessed, all of them would fill memory."""
        if self._calibration is not None:
            size, spec = self.task.calibration_batch, self.net.input_spec(arch)
            yield from (fed for fed, _ in self._calibration.batches(size, spec))

    @property
    def _n_calibration(self) -> int:
        return 0 if self._calibration is None else len(self._calibration)

    def score(self, arch: Architecture, model: Path, samples: SplitSamples) -> Score:
        """Run an architecture's model over samples and score its outputs.

        Raises:
            EvaluationError: The runtime or the metric failed, or gave NaN.
            DataError: The samples cannot be read.
        """
        spec = self.net.input_spec(arch)
        waiting: deque[NDArray[Any]] = deque()

        def fed() -> Iterator[dict[str, NDArray[Any]]]:
            for inputs, targets in samples.batches(SCORE_BATCH, spec):
                waiting.append(targets)
                yield inputs

        outputs = self.device.run(model, fed())
        return score_outputs(((out, waiting.popleft()) for out in outputs), self.task.metric)

    def scored(
        self,
        arch: Architecture,
        model: Path,
        samples: SplitSamples,
        purpose: Purpose,
        cost_s: float = 0.0,
    ) -> Measurement:
        """Score a model and remember it, or return what is remembered.

        Args:
            arch: The architecture.
            model: Its file.
            samples: What it is scored on.
            purpose: What for.
            cost_s: Seconds already spent on building it.
        """
        context = self.score_context(samples)
        known = self.store.find(arch.key, self.task.metric.name, context, purpose)
        if known is not None:
            return known
        begin = time.perf_counter()
        score = self.score(arch, model, samples)
        measurement = Measurement(
            key=arch.key,
            quantity=self.task.metric.name,
            context=context,
            purpose=purpose,
            value=score.value,
            low=score.low,
            high=score.high,
            count=len(score.outcomes),
            cost_s=cost_s + time.perf_counter() - begin,
            samples=score.outcomes,
        )
        self.store.add(measurement)
        return measurement

    @overload
    def search_values(
        self, archs: Sequence[Architecture], quantities: Iterable[str]
    ) -> dict[str, dict[str, float] | EvaluationError]: ...

    @overload
    def search_values(
        self, archs: Sequence[Architecture], quantities: Iterable[str], race: Racing | None
    ) -> dict[str, Values | EvaluationError]: ...

    def search_values(
        self,
        archs: Sequence[Architecture],
        quantities: Iterable[str],
        race: Racing | None = None,
    ) -> Any:
        """Measure what the search selects by, and remember it.

        Args:
            archs: Proposed architectures that are not finished.
            quantities: ``"latency"``, the metric's name, or both.
            race: Scores them, once their latencies are known, where not all need all samples.

        Returns:
            Key -> the values, or why there are none.
        """
        wanted = set(quantities)
        macs: dict[str, int] = {}
        values: dict[str, Values | EvaluationError] = {}
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            models: dict[str, Path] = {}
            unscored: dict[Architecture, Prepared] = {}
            for arch in archs:
                try:
                    values[arch.key] = self._search_score(
                        arch, wanted, Path(scratch), models, race, unscored
                    )
                    if LATENCY in wanted:
                        macs[arch.key] = self._macs(arch)
                except EvaluationError as error:
                    values[arch.key] = error
                    models.pop(arch.key, None)
            for arch in archs:
                timed_before = self.remembered(arch.key, LATENCY)
                if timed_before is not None and arch.key in macs:
                    self._pace.believe(timed_before.value, macs[arch.key])
            timed = self._search_latencies(models, macs)
            for key, latency in timed.items():
                _put(values, key, LATENCY, latency)
            if race is not None:
                able = {a: m for a, m in unscored.items() if isinstance(values[a.key], dict)}
                for arch, score in race.scores(able).items():
                    _put(values, arch.key, self.task.metric.name, score)
        return values

    def _search_score(
        self,
        arch: Architecture,
        wanted: set[str],
        scratch: Path,
        models: dict[str, Path],
        race: Racing | None,
        unscored: dict[Architecture, Prepared],
    ) -> Values:
        """Score one architecture; what still has to be timed is left in ``models``."""
        values: Values = {}
        metric = self.task.metric.name
        timed = self.remembered(arch.key, LATENCY)
        to_time = LATENCY in wanted and timed is None
        scored = self.remembered(arch.key, metric)
        lost = race.dropped(arch.key) if race is not None else None
        to_score = metric in wanted and scored is None and lost is None
        tile = not self.task.scores or (scored is not None and REUSED in scored.details)
        path = scratch / f"{arch.key}.onnx"
        begin = time.perf_counter()
        if to_time or to_score:
            model = self.model_to_time(arch) if tile else self.build(arch).model
            self._tiled |= {arch.key} if tile else set()
            path.write_bytes(model.SerializeToString(deterministic=True))
        spent = time.perf_counter() - begin
        if lost is not None:
            values[metric] = lost
        elif to_score and race is not None:
            unscored[arch] = Prepared(path=path, cost_s=spent, calibrated=self._n_calibration)
        elif metric in wanted:
            values[metric] = self.scored(arch, path, self.task.search, "search", spent).value
        if timed is not None and LATENCY in wanted:
            values[LATENCY] = timed.value
        if to_time:
            models[arch.key] = path
        return values

    def _search_latencies(
        self, models: Mapping[str, Path], macs: Mapping[str, int]
    ) -> dict[str, float | EvaluationError]:
        """Time models; one that is suspiciously fast counts as it is in a fresh process."""
        if not models:
            return {}
        measured = self.device.measure(models, seed=self.seed, settings=SEARCH)
        first = {k: got.latency_ms for k, got in measured.items() if isinstance(got, Latency)}
        suspects = self._pace.suspects(first, macs)
        if suspects:
            again = {key: models[key] for key in suspects}
            measured |= self.device.measure(again, seed=self.seed + 2, settings=SEARCH)
        self.store.add_all(
            latency_measurement(
                key,
                latency,
                self.latency_context,
                "search",
                **({"suspected_ms": first[key]} if key in suspects else {}),
                **({"weights": TILE} if key in self._tiled else {}),
            )
            for key, latency in measured.items()
            if isinstance(latency, Latency)
        )
        found: dict[str, float | EvaluationError] = {}
        for key, got in measured.items():
            found[key] = got.latency_ms if isinstance(got, Latency) else got
            if key in suspects and isinstance(got, Latency):
                self._pace.believe(got.latency_ms, macs[key])
        return found

    def _macs(self, arch: Architecture) -> int:
        return int(self.net.exact("macs", self.net.space.architectures([arch]))[0])

    def confirm_latencies(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together, in a process of their own, and remember all or nothing.

        The context names who was timed together: another set is another measurement.
        """
        together = "+".join(sorted(models))
        context = f"{self.latency_context} together={_short_hash(together)}"
        known = {key: self.store.find(key, LATENCY, context, "confirm") for key in models}
        if any(known.values()):
            return {
                key: found or DeviceError("failed when the front was timed together")
                for key, found in known.items()
            }
        measured = self.device.measure(models, seed=self.seed + 1, settings=settings)
        timed = {key: got for key, got in measured.items() if isinstance(got, Latency)}
        confirmed = {
            key: latency_measurement(key, latency, context, "confirm")
            for key, latency in timed.items()
        }
        ratios = [ratio_measurement(key, latency, context) for key, latency in timed.items()]
        self.store.add_all([*confirmed.values(), *ratios])
        return {
            key: got if isinstance(got, DeviceError) else confirmed[key]
            for key, got in measured.items()
        }

    def seconds_each(self, quantities: Iterable[str]) -> float:
        """Estimate how long one architecture takes, by trying a medium one on a few samples.

        Raises:
            EvaluationError: It cannot be evaluated.
        """
        spread = self.net.space.sample_spread(3, seed=0)
        arch = spread[len(spread) // 2]
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            model = self.write_model(arch, Path(scratch))
            built, scoring = time.perf_counter(), 0.0
            spec = self.net.input_spec(arch)
            for few, _ in islice(self.task.search.batches(SCORE_BATCH, spec), 1):
                list(self.device.run(model, [few]))  # loads the model
                loaded = time.perf_counter()
                list(self.device.run(model, [few]))
                scoring = (time.perf_counter() - loaded) * len(self.task.search) / SCORE_BATCH
        timing = SEARCH.seconds_per_model if LATENCY in quantities else 0.0
        return built - begin + scoring + timing

    def write_model(self, arch: Architecture, folder: Path) -> Path:
        """Build an architecture's model and write it into a folder, named by its key."""
        path = folder / f"{arch.key}.onnx"
        write_atomic(path, self.model_of(arch).SerializeToString(deterministic=True))
        return path


@contextmanager
def _as_failure() -> Iterator[None]:
    """Turn whatever is raised into a trial's failure: a family is a stranger's code."""
    try:
        yield
    except (EvaluationError, DataError):
        raise
    except Exception as error:
        raise EvaluationError(f"{type(error).__name__}: {error}") from error


def latency_measurement(
    key: str, latency: Latency, context: str, purpose: Purpose, **details: float | str
) -> Measurement:
    """Turn a device's answer into a row of the store, with further details."""
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


def ratio_measurement(key: str, latency: Latency, context: str) -> Measurement:
    """Return a confirmed latency relative to the anchor's, with that of every round.

    Its samples, ``(rounds,)``, are NaN in rounds that do not count. Contenders of one job share
    their rounds, which tells their differences better than their intervals do.
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


def noisy_low(measurement: Measurement | None) -> float:
    """Return a latency at the good end of its ratio's interval: what ranking depends on."""
    assert measurement is not None
    ratio, low = measurement.details["ratio"], measurement.details["ratio_low"]
    return float(measurement.value * low / ratio)


def _put(
    values: dict[str, Values | EvaluationError],
    key: str,
    quantity: str,
    found: float | Estimate | EvaluationError,
) -> None:
    """Add a value of an architecture, or let it fail."""
    others = values[key]
    if isinstance(found, EvaluationError):
        values[key] = found
    elif not isinstance(others, EvaluationError):
        others[quantity] = found


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
