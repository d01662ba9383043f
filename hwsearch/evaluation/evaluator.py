"""Values of a batch of architectures: from the store where they are known, else measured."""

import hashlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx

from hwsearch.accuracy.alike import alike
from hwsearch.accuracy.scoring import Scored, Scorer
from hwsearch.accuracy.task import CALIBRATION_BATCH, SplitSamples, Task
from hwsearch.devices import Device, Latency, MeasureSettings
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, DeviceLostError, EvaluationError
from hwsearch.evaluation.build import Builder, raised
from hwsearch.evaluation.measurements import (
    LATENCY,
    latency_measurement,
    ratio_measurement,
    score_measurement,
)
from hwsearch.evaluation.outliers import Pace
from hwsearch.files import write_atomic
from hwsearch.models.artifact import Exported
from hwsearch.quantities import source_of
from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet
from hwsearch.trials import Measurement, Purpose, Store

T = TypeVar("T")
TILE = "a repeated tile in the same graph"  # times do not differ
REUSED = "reused"  # origin of trials that an earlier run had; a detail of its measurements
# Coarser than what is reported: the surrogates average over trials, and the front is timed again.
SEARCH = MeasureSettings(half_width=0.03, seconds_per_model=1.0)
Values = dict[str, float]


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


class Evaluator:
    """Measures architectures on one device and one task, and remembers in one store.

    Args:
        net: The supernet.
        device: Times models and runs them.
        task: Data and metric.
        store: Holds what is known; every value measured is added to it.
        seed: Decides the order in which models take turns.

    Attributes:
        latency_context: What decides a latency besides the architecture.
        pace: That of the latencies believed so far.
    """

    def __init__(
        self, net: Supernet, device: Device, task: Task, store: Store, seed: int = 0
    ) -> None:
        self.net, self.device, self.task, self.store, self.seed = net, device, task, store, seed
        self._builder = Builder(net, device, task)
        self._scorer = Scorer(net, device, task.metric)
        self.latency_context = f"{device.spec} {digest(device.fingerprint())}"
        self.pace = Pace()
        self._tiled: set[str] = set()  # keys whose latency is that of other weights

    def score_context(self, samples: SplitSamples) -> str:
        """Say what decides a score besides the architecture."""
        digest, batch = self._builder.calibration_digest, self.task.calibration_batch
        calibration = digest or "none"
        if digest and batch != CALIBRATION_BATCH:
            calibration += f"/{batch}"
        return (
            f"weights={self.net.digest[:16]} calibration={calibration} "
            f"samples={len(samples)}@{samples.digest} onnx {self._builder.context}"
        )

    def remembered(self, key: str, quantity: str) -> Measurement | None:
        """Return what the search knows of an architecture, if it does."""
        return self.store.find(key, quantity, self.search_context(quantity), "search")

    def search_context(self, quantity: str) -> str:
        """Return what decides the search's value of a quantity besides the architecture."""
        if source_of(quantity) == "device":
            return self.latency_context
        return self.score_context(self.task.search)

    def build(self, arch: Architecture) -> Exported:
        """Return the recalibrated subnet and its ONNX model, of the device's precision.

        Raises:
            EvaluationError: The subnet cannot be built, recalibrated, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        (built,) = self._builder.build([arch])
        return raised(built).exported

    def model_of(self, arch: Architecture) -> onnx.ModelProto:
        """Return the model of an architecture: without data, one of which only the time counts.

        Raises:
            EvaluationError: As for `build`.
            DataError: The same.
        """
        if self.task.scores:
            return self.build(arch).model
        return self._builder.model_to_time(arch)

    def prepare(
        self, archs: Sequence[Architecture], folder: Path
    ) -> dict[Architecture, Prepared | EvaluationError]:
        """Build models together, and write them into a folder, named by their keys.

        Args:
            archs: Distinct architectures.
            folder: Where the files are written.

        Returns:
            For each in order, its file and what it took, or why there is none.

        Raises:
            DataError: The calibration samples cannot be read.
        """
        ready: dict[Architecture, Prepared | EvaluationError] = {}
        for arch, built in zip(archs, self._builder.build(archs), strict=True):
            if isinstance(built, EvaluationError):
                ready[arch] = built
                continue
            begin = time.perf_counter()
            path = _write(built.exported.model, arch, folder)
            cost_s = built.cost_s + time.perf_counter() - begin
            ready[arch] = Prepared(path=path, cost_s=cost_s, calibrated=built.calibrated)
        return ready

    def outcomes(
        self, models: Mapping[Architecture, Path], samples: SplitSamples
    ) -> dict[Architecture, Scored | EvaluationError]:
        """Score models, and remember nothing; see `hwsearch.accuracy.scoring.Scorer.score`.

        Raises:
            DeviceLostError: The device no longer runs what it ran before.
        """
        found = self._scorer.score(models, samples)
        self.check_device(found.values())
        return found

    def scored(
        self,
        arch: Architecture,
        model: Path,
        samples: SplitSamples,
        purpose: Purpose,
    ) -> Measurement:
        """Score a model and remember it, or return what is remembered.

        Args:
            arch: The architecture.
            model: Its file.
            samples: What it is scored on.
            purpose: What for.

        Raises:
            EvaluationError: The runtime or the metric failed, or gave NaN.
            DataError: The samples cannot be read.
        """
        context = self.score_context(samples)
        known = self.store.find(arch.key, self.task.metric.name, context, purpose)
        if known is not None:
            return known
        outcomes = raised(self.outcomes({arch: model}, samples)[arch])
        return self._remember(arch, samples, purpose, outcomes)

    def _remember(
        self,
        arch: Architecture,
        samples: SplitSamples,
        purpose: Purpose,
        outcomes: Scored,
        build_s: float = 0.0,
    ) -> Measurement:
        """Add the score that outcomes on all samples make to the store."""
        measurement = score_measurement(
            arch.key,
            outcomes.outcomes,
            self.task.metric,
            self.score_context(samples),
            purpose,
            build_s + outcomes.cost_s,
        )
        self.store.add(measurement)
        return measurement

    def search_values(
        self,
        archs: Sequence[Architecture],
        quantities: Iterable[str],
        *,
        tiles: bool = False,
    ) -> dict[str, Values | EvaluationError]:
        """Measure what the search selects by, and remember it.

        Args:
            archs: Proposed architectures that are not finished.
            quantities: ``"latency"``, the metric's name, or both.
            tiles: Whether only times are wanted, so that any weights will do.

        Returns:
            Key -> the values, or why there are none.
        """
        wanted, metric = set(quantities), self.task.metric.name
        missing = {arch: wanted - self.known_values(arch, wanted).keys() for arch in archs}
        failed: dict[Architecture, EvaluationError] = {}
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            to_tile = [a for a in archs if missing[a] and (tiles or self._takes_a_tile(a))]
            ready = _split(self._prepare_tiles(to_tile, Path(scratch)), failed)
            to_build = [a for a in archs if missing[a] and a not in to_tile]
            for group in alike(self.net, to_build):
                ready |= _split(self.prepare(group, Path(scratch)), failed)
            if LATENCY in wanted:
                macs = _split({a: self._macs(a) for a in archs if a not in failed}, failed)
                to_time = [a for a in archs if a not in failed and LATENCY in missing[a]]
                failed |= self._search_latencies({a: ready[a].path for a in to_time}, macs)
            to_score = {a: ready[a] for a in ready if a not in failed and metric in missing[a]}
            if to_score:
                failed |= self.score_all(to_score, self.task.search, "search")
        return {arch.key: failed.get(arch) or self.known_values(arch, wanted) for arch in archs}

    def known_values(self, arch: Architecture, wanted: Iterable[str]) -> Values:
        """Return the values that the search has stored of an architecture, by quantity."""
        found = {quantity: self.remembered(arch.key, quantity) for quantity in wanted}
        return {q: known.value for q, known in found.items() if known is not None}

    def _takes_a_tile(self, arch: Architecture) -> bool:
        """Whether only the time of an architecture is still to be found out."""
        scored = self.remembered(arch.key, self.task.metric.name)
        return not self.task.scores or (scored is not None and REUSED in scored.details)

    def _prepare_tiles(
        self, archs: Sequence[Architecture], folder: Path
    ) -> dict[Architecture, Prepared | EvaluationError]:
        ready: dict[Architecture, Prepared | EvaluationError] = {}
        for arch in archs:
            begin = time.perf_counter()
            try:
                path = _write(self._builder.model_to_time(arch), arch, folder)
            except EvaluationError as error:
                ready[arch] = error
            else:
                ready[arch] = Prepared(path=path, cost_s=time.perf_counter() - begin, calibrated=0)
                self._tiled.add(arch.key)
        return ready

    def score_all(
        self, ready: Mapping[Architecture, Prepared], samples: SplitSamples, purpose: Purpose
    ) -> dict[Architecture, EvaluationError]:
        """Score models together, and remember it.

        Returns:
            Why others have no score.
        """
        models = {arch: prepared.path for arch, prepared in ready.items()}
        failed: dict[Architecture, EvaluationError] = {}
        for arch, outcomes in _split(self.outcomes(models, samples), failed).items():
            self._remember(arch, samples, purpose, outcomes, ready[arch].cost_s)
        return failed

    def score_missing(
        self, archs: Sequence[Architecture], samples: SplitSamples, purpose: Purpose
    ) -> None:
        """Build and score together whatever is not remembered; what fails is left to `scored`.

        Raises:
            DataError: The samples cannot be read.
        """
        context, metric = self.score_context(samples), self.task.metric.name
        missing = [a for a in archs if not self.store.find(a.key, metric, context, purpose)]
        for group in alike(self.net, missing):
            with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
                ready = _split(self.prepare(group, Path(scratch)), {})
                self.score_all(ready, samples, purpose)

    def _search_latencies(
        self, models: Mapping[Architecture, Path], macs: Mapping[Architecture, int]
    ) -> dict[Architecture, EvaluationError]:
        """Time models and remember it; return why others have no latency.

        One that is suspiciously fast counts as it is in a fresh process.
        """
        for arch in macs.keys() - models.keys():
            if known := self.remembered(arch.key, LATENCY):
                self.pace.believe(known.value, macs[arch])
        if not models:
            return {}
        named = {arch.key: model for arch, model in models.items()}
        macs_of = {arch.key: macs[arch] for arch in models}
        measured = self.device.measure(named, seed=self.seed, settings=SEARCH)
        self.check_device(measured.values())
        first = {k: got.latency_ms for k, got in measured.items() if isinstance(got, Latency)}
        suspects = self.pace.suspects(first, macs_of)
        if suspects:
            again = {key: named[key] for key in suspects}
            measured |= self.device.measure(again, seed=self.seed + 2, settings=SEARCH)
            self.check_device(measured.values())
        failed: dict[Architecture, EvaluationError] = {}
        timed = _split({arch: measured[arch.key] for arch in models}, failed)
        self.store.add_all(
            latency_measurement(
                arch.key,
                latency,
                self.latency_context,
                "search",
                **({"suspected_ms": first[arch.key]} if arch.key in suspects else {}),
                **({"weights": TILE} if arch.key in self._tiled else {}),
            )
            for arch, latency in timed.items()
        )
        for arch, latency in timed.items():
            if arch.key in suspects:
                self.pace.believe(latency.latency_ms, macs[arch])
        return failed

    def _macs(self, arch: Architecture) -> int | EvaluationError:
        try:
            return int(self.net.exact("macs", self.net.space.architectures([arch]))[0])
        except EvaluationError as error:
            return error

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
        self.check_device(measured.values())
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
            # As a trial it counts its calibration samples: what is built here is not remembered.
            other = Evaluator(self.net, self.device, self.task, self.store)
            model = other.write_model(arch, Path(scratch))
            built = time.perf_counter()
            scoring = self._scorer.seconds(arch, model, self.task.search)
        timing = SEARCH.seconds_per_model if LATENCY in quantities else 0.0
        return built - begin + scoring + timing

    def check_device(self, results: Iterable[object]) -> None:
        """Tell a device that is gone from models that it does not run.

        Args:
            results: What came of asking it.

        Raises:
            DeviceLostError: It failed, and also fails on a model that it ran before.
        """
        failed = next((each for each in results if isinstance(each, DeviceError)), None)
        known = None if failed is None else self._known_to_run()
        if known is None:
            return
        arch = self.net.space.architectures([self.store.trial(known.key).choices])[0]
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            again = self._try(self.write_model(arch, Path(scratch)), arch, known.quantity)
        if again is not None:
            raise DeviceLostError(
                f"device {self.device.spec} fails on {arch.key} too, which it ran before: {again}"
            )

    def _known_to_run(self) -> Measurement | None:
        """What the device did before: it timed an architecture, or else scored one."""
        timed = self.store.measurements(quantity=LATENCY, purpose="search")
        scored = self.store.measurements(quantity=self.task.metric.name, purpose="search")
        mine = (m for m in timed if m.context == self.latency_context)
        return next(mine, scored[0] if scored and not timed else None)

    def _try(self, model: Path, arch: Architecture, quantity: str) -> DeviceError | None:
        """Have the device time or run a model; return why it does not."""
        if quantity == LATENCY:
            timed = self.device.measure({arch.key: model}, seed=self.seed, settings=SEARCH)
            return got if isinstance(got := timed[arch.key], DeviceError) else None
        few, _ = next(self.task.search.batches(1, self.net.input_spec(arch)))
        try:
            list(self.device.run(model, [few]))
        except DeviceError as error:
            return error
        return None

    def write_model(self, arch: Architecture, folder: Path) -> Path:
        """Build an architecture's model and write it into a folder, named by its key."""
        return _write(self.model_of(arch), arch, folder)


def _write(model: onnx.ModelProto, arch: Architecture, folder: Path) -> Path:
    path = folder / f"{arch.key}.onnx"
    write_atomic(path, model.SerializeToString(deterministic=True))
    return path


def _split(
    results: Mapping[Architecture, T | EvaluationError],
    failed: dict[Architecture, EvaluationError],
) -> dict[Architecture, T]:
    """Return what came out well; add the rest to what has failed."""
    failed |= {a: each for a, each in results.items() if isinstance(each, EvaluationError)}
    return {a: each for a, each in results.items() if not isinstance(each, EvaluationError)}


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
