"""Values of a batch of architectures: stored ones are reused, others measured."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import onnx

from hwsearch.accuracy.scoring import Scored, Scorer
from hwsearch.accuracy.task import CALIBRATION_BATCH, SplitSamples, Task
from hwsearch.devices import Device, MeasureSettings
from hwsearch.errors import DeviceError, DeviceLostError, EvaluationError
from hwsearch.evaluation.build import Builder, raised
from hwsearch.evaluation.built_models import BuiltModel, BuiltModels
from hwsearch.evaluation.latencies import SEARCH, LatencyTimer
from hwsearch.evaluation.measurements import LATENCY, score_measurement
from hwsearch.models.artifact import Exported
from hwsearch.quantities import source_of
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, Purpose

T = TypeVar("T")
REUSED = "reused"  # origin of trials that an earlier run had; a detail of its measurements
Values = dict[str, float]


class Evaluator:
    """Measures architectures on one device and one task, and stores the values.

    Attributes:
        models: Cache of the built models; `close` removes their files.
        latency_context: What determines a latency besides the architecture.
        pace: Pace of the accepted latencies.
    """

    def __init__(
        self, net: Supernet, device: Device, task: Task, store: Store, seed: int = 0
    ) -> None:
        self.net, self.device, self.task, self.store, self.seed = net, device, task, store, seed
        self._builder = Builder(net, device, task)
        self.models = BuiltModels(net, self._builder)
        self._scorer = Scorer(net, device, task.metric)
        self._timer = LatencyTimer(device, seed, self.check_device)
        self.latency_context, self.pace = self._timer.context, self._timer.pace

    def close(self) -> None:
        """Remove the files of the built models."""
        self.models.close()

    def score_context(self, samples: SplitSamples) -> str:
        """Return what determines a score besides the architecture."""
        digest, batch = self._builder.calibration_digest, self.task.calibration_batch
        calibration = digest or "none"
        if digest and batch != CALIBRATION_BATCH:
            calibration += f"/{batch}"
        return (
            f"weights={self.net.digest[:16]} calibration={calibration} "
            f"samples={len(samples)}@{samples.digest} onnx {self._builder.context}"
        )

    def remembered(self, key: str, quantity: str) -> Measurement | None:
        """Return the stored measurement of the search, if there is one."""
        return self.store.find(key, quantity, self.search_context(quantity), "search")

    def search_context(self, quantity: str) -> str:
        """Return what determines the search's value of a quantity besides the architecture."""
        if source_of(quantity) == "device":
            return self.latency_context
        return self.score_context(self.task.search)

    def build(self, arch: Architecture) -> Exported:
        """Return the recalibrated subnet and its ONNX model in the device's precision.

        Raises:
            EvaluationError: The subnet cannot be built, recalibrated, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        return self.models.exported(arch)

    def model_of(self, arch: Architecture) -> onnx.ModelProto:
        """Return the model of an architecture; without data it is only for timing.

        Raises:
            EvaluationError: As for `build`.
            DataError: The same.
        """
        return self.models.model(arch, only_timed=not self.task.scores)

    def files_of(self, archs: Sequence[Architecture]) -> dict[str, Path]:
        """Return key -> model file of architectures; see `model_of`."""
        built = self.models.get(archs, only_timed=not self.task.scores)
        return {arch.key: raised(each).path for arch, each in built.items()}

    def outcomes(
        self, models: Mapping[Architecture, Path], samples: SplitSamples
    ) -> dict[Architecture, Scored | EvaluationError]:
        """Score models without storing the scores; see `hwsearch.accuracy.scoring.Scorer.score`.

        Raises:
            DeviceLostError: The device no longer runs a model that it ran before.
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
        """Return the score of a model on samples: the stored one, or else score and store it.

        Raises:
            EvaluationError: The runtime or the metric failed, or returned NaN.
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
        """Measure and store quantities of architectures; return key -> values or error.

        Quantities are ``"latency"``, the metric's name, or both. ``tiles`` allows models with
        other weights, for timing only.
        """
        wanted, metric = set(quantities), self.task.metric.name
        missing = {arch: wanted - self.known_values(arch, wanted).keys() for arch in archs}
        failed: dict[Architecture, EvaluationError] = {}
        only_timed = [a for a in archs if missing[a] and (tiles or self._is_only_timed(a))]
        ready = _split(self.models.get(only_timed, only_timed=True), failed)
        to_build = [a for a in archs if missing[a] and a not in only_timed]
        ready |= _split(self.models.get(to_build), failed)
        if LATENCY in wanted:
            to_time = [a for a in archs if a not in failed and LATENCY in missing[a]]
            failed |= self._search_latencies(archs, {a: ready[a] for a in to_time}, failed)
        to_score = {a: ready[a] for a in ready if a not in failed and metric in missing[a]}
        if to_score:
            failed |= self.score_all(to_score, self.task.search, "search")
        return {arch.key: failed.get(arch) or self.known_values(arch, wanted) for arch in archs}

    def known_values(self, arch: Architecture, wanted: Iterable[str]) -> Values:
        """Return the stored values of the search, by quantity."""
        found = {quantity: self.remembered(arch.key, quantity) for quantity in wanted}
        return {q: known.value for q, known in found.items() if known is not None}

    def _is_only_timed(self, arch: Architecture) -> bool:
        """Return whether only the latency of an architecture has to be measured."""
        scored = self.remembered(arch.key, self.task.metric.name)
        return not self.task.scores or (scored is not None and REUSED in scored.details)

    def score_all(
        self, ready: Mapping[Architecture, BuiltModel], samples: SplitSamples, purpose: Purpose
    ) -> dict[Architecture, EvaluationError]:
        """Score models together and store the scores; return the errors of the others."""
        models = {arch: built.path for arch, built in ready.items()}
        failed: dict[Architecture, EvaluationError] = {}
        for arch, outcomes in _split(self.outcomes(models, samples), failed).items():
            self._remember(arch, samples, purpose, outcomes, ready[arch].charge())
        return failed

    def score_missing(
        self, archs: Sequence[Architecture], samples: SplitSamples, purpose: Purpose
    ) -> None:
        """Build and score together what is not stored; failures are left to `scored`."""
        context, metric = self.score_context(samples), self.task.metric.name
        missing = [a for a in archs if not self.store.find(a.key, metric, context, purpose)]
        self.score_all(_split(self.models.get(missing), {}), samples, purpose)

    def _search_latencies(
        self,
        archs: Sequence[Architecture],
        ready: Mapping[Architecture, BuiltModel],
        failed: dict[Architecture, EvaluationError],
    ) -> dict[Architecture, EvaluationError]:
        """Time the ready ones of architectures and store latencies; return errors of timing.

        ``failed`` receives architectures whose MACs cannot be counted.
        """
        macs = _split({a: self._macs(a) for a in archs if a not in failed}, failed)
        for arch in macs.keys() - ready.keys():
            if known := self.remembered(arch.key, LATENCY):
                self.pace.believe(known.value, macs[arch])
        paths = {arch: built.path for arch, built in ready.items() if arch in macs}
        repeated = [arch for arch, built in ready.items() if built.only_timed]
        found: dict[Architecture, EvaluationError] = {}
        self.store.add_all(_split(self._timer.search(paths, macs, repeated), found).values())
        return found

    def _macs(self, arch: Architecture) -> int | EvaluationError:
        try:
            return int(self.net.exact("macs", self.net.space.architectures([arch]))[0])
        except EvaluationError as error:
            return error

    def confirm_latencies(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together, in a separate process, and store all results or none.

        The context names the set of models: another set has other measurements.
        """
        context = self._timer.together(models)
        known = {key: self.store.find(key, LATENCY, context, "confirm") for key in models}
        if any(known.values()):
            return {
                key: found or DeviceError("failed when the front was timed together")
                for key, found in known.items()
            }
        measurements, results = self._timer.confirm(models, settings)
        self.store.add_all(measurements)
        return results

    def seconds_each(self, quantities: Iterable[str]) -> float:
        """Estimate the seconds per architecture from a medium one and a few samples.

        Raises:
            EvaluationError: It cannot be evaluated.
        """
        spread = self.net.space.sample_spread(3, seed=0)
        arch = spread[len(spread) // 2]
        begin = time.perf_counter()
        built = raised(self.models.get([arch], only_timed=not self.task.scores)[arch])
        build_s = time.perf_counter() - begin
        scoring = self._scorer.estimate_cost_s(arch, built.path, self.task.search)
        timing = SEARCH.seconds_per_model if LATENCY in quantities else 0.0
        return build_s + scoring + timing

    def check_device(self, results: Iterable[object]) -> None:
        """Raise DeviceLostError if a result is an error and a model that ran before fails too."""
        failed = next((each for each in results if isinstance(each, DeviceError)), None)
        known = None if failed is None else self._known_to_run()
        if known is None:
            return
        arch = self.net.space.architectures([self.store.trial(known.key).choices])[0]
        built = raised(self.models.get([arch], only_timed=not self.task.scores)[arch])
        again = self._try(built.path, arch, known.quantity)
        if again is not None:
            raise DeviceLostError(
                f"device {self.device.spec} fails on {arch.key} too, which it ran before: {again}"
            )

    def _known_to_run(self) -> Measurement | None:
        """Return an earlier measurement of the device: a latency, or else a score."""
        timed = self.store.measurements(quantity=LATENCY, purpose="search")
        scored = self.store.measurements(quantity=self.task.metric.name, purpose="search")
        mine = (m for m in timed if m.context == self.latency_context)
        return next(mine, scored[0] if scored and not timed else None)

    def _try(self, model: Path, arch: Architecture, quantity: str) -> DeviceError | None:
        """Time or run a model on the device; return its error."""
        if quantity == LATENCY:
            timed = self.device.measure({arch.key: model}, seed=self.seed, settings=SEARCH)
            return got if isinstance(got := timed[arch.key], DeviceError) else None
        few, _ = next(self.task.search.batches(1, self.net.input_spec(arch)))
        try:
            list(self.device.run(model, [few]))
        except DeviceError as error:
            return error
        return None


def _split(
    results: Mapping[Architecture, T | EvaluationError],
    failed: dict[Architecture, EvaluationError],
) -> dict[Architecture, T]:
    """Return the results without errors; add the errors to ``failed``."""
    failed |= {a: each for a, each in results.items() if isinstance(each, EvaluationError)}
    return {a: each for a, each in results.items() if not isinstance(each, EvaluationError)}
