"""Values of a batch of architectures: stored ones are reused, others measured."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from hwsearch.accuracy.scoring import Scored, Scorer
from hwsearch.accuracy.task import CALIBRATION_BATCH, SplitSamples, Task
from hwsearch.devices import Device, MeasureSettings
from hwsearch.devices.throughput import BATCH_SIZES
from hwsearch.errors import DeviceError, DeviceLostError, EvaluationError
from hwsearch.evaluation.attempt import attempt, raised, successes
from hwsearch.evaluation.build import Builder, BuiltModel, BuiltModels
from hwsearch.evaluation.latency_timer import LatencyTimer
from hwsearch.evaluation.measurements import (
    LATENCY,
    REPEATED_WEIGHTS,
    THROUGHPUT,
    score_measurements,
)
from hwsearch.evaluation.outliers import Pace
from hwsearch.evaluation.throughput import ThroughputTimer
from hwsearch.evaluation.timing_jobs import TimingJobs
from hwsearch.files import digest_of_text
from hwsearch.models.onnx_file import read_model
from hwsearch.quantities import quantity_of
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, Purpose

REUSED = "reused"  # origin of trials that an earlier run had; a detail of its measurements
# Coarser than what is reported: the surrogates average over trials, and the front is timed again.
SEARCH = MeasureSettings(half_width=0.03, seconds_per_model=1.0)
BRIDGES_PER_MODEL = 0.5  # in jobs of four, the usual batch
Values = dict[str, float]


class Evaluator:
    """Measures architectures on one device and one task, and stores the values.

    Attributes:
        models: Cache of the built models; `close` removes their files.
        latency_timer: Measures latencies, and knows the pace of those that it accepted.
    """

    def __init__(
        self,
        net: Supernet,
        device: Device,
        task: Task,
        store: Store,
        seed: int = 0,
        batch_sizes: Sequence[int] = BATCH_SIZES,
    ) -> None:
        self.net, self.device, self.task, self.store, self.seed = net, device, task, store, seed
        self._builder = Builder(net, device, task)
        self.models = BuiltModels(net, self._builder)
        self._scorer = Scorer(net, device, task.metric, task.beside)
        self.latency_timer = LatencyTimer(net.space, device, self.models, self.check_device)
        self._throughputs = ThroughputTimer(device, batch_sizes)
        self._jobs = TimingJobs()

    def use(self, store: Store) -> None:
        """Find and store measurements in another store from now on."""
        self.store, self._jobs = store, TimingJobs()

    @property
    def timing_jobs(self) -> TimingJobs:
        """Return the timing jobs in the store."""
        return self._jobs.read(self.store)

    @property
    def pace(self) -> Pace:
        """Return the pace of the accepted latencies."""
        return self.latency_timer.pace

    @property
    def latency_context(self) -> str:
        """Return what determines a latency besides the architecture."""
        return self.latency_timer.context

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

    def _context_of(self, arch: Architecture, samples: SplitSamples) -> str:
        """Return what determines the score of an architecture's model, refined or not."""
        context, by = self.score_context(samples), self.task.calibration
        if arch not in self._builder.refined:
            return context
        return f"{context} refined={'none' if by is None else f'{len(by)}@{by.digest}'}"

    def remembered(self, key: str, quantity: str) -> Measurement | None:
        """Return the measurement of the search as it is stored, if there is one."""
        return self.store.find(key, quantity, self.search_context(quantity), "search")

    def search_context(self, quantity: str) -> str:
        """Return what determines the search's value of a quantity besides the architecture."""
        if quantity == THROUGHPUT:
            return self._throughputs.context
        timed = quantity_of(quantity).source == "device"
        return self.latency_context if timed else self.score_context(self.task.search)

    def model_of(self, arch: Architecture) -> onnx.ModelProto:
        """Return the model of an architecture, without data only for timing."""
        built = raised(self.models.get([arch], only_timed=not self.task.scores)[arch])
        return read_model(built.path) if built.exported is None else built.exported.model

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
        self, arch: Architecture, model: Path, samples: SplitSamples, purpose: Purpose
    ) -> Measurement:
        """Return the score of a model on samples: the stored one, or else score and store it.

        Raises:
            EvaluationError: The runtime or the metric failed, or returned NaN.
            DataError: The samples cannot be read.
        """
        context, metric = self._context_of(arch, samples), self.task.metric
        known = self.store.find(arch.key, metric.name, context, purpose)
        if known is not None:
            return known
        found = raised(self.outcomes({arch: model}, samples)[arch])
        measurements = score_measurements(arch.key, found, self.task, context, purpose)
        self.store.add_all(measurements)
        return measurements[0]

    def scores(
        self, arch: Architecture, model: Path, samples: SplitSamples, purpose: Purpose
    ) -> dict[str, Measurement]:
        """Return the scores of a model by all metrics of the task; see `scored`."""
        first = self.scored(arch, model, samples, purpose)
        context = self._context_of(arch, samples)
        found = {first.quantity: first}
        for metric in self.task.beside:
            known = self.store.find(arch.key, metric.name, context, purpose)
            found |= {} if known is None else {metric.name: known}
        return found

    def search_values(
        self, archs: Sequence[Architecture], quantities: Iterable[str], *, only_timed: bool = False
    ) -> dict[str, Values | EvaluationError]:
        """Measure and store quantities of architectures; return key -> values or error.

        Quantities are ``"latency"``, ``"throughput"`` and the metrics' names. ``only_timed``
        allows models with other weights, which are not scored.
        """
        wanted, scores = set(quantities), {metric.name for metric in self.task.metrics}
        missing = {a: {q for q in wanted if not self.remembered(a.key, q)} for a in archs}
        failed: dict[Architecture, EvaluationError] = {}
        for_timing = [a for a in archs if missing[a] and (only_timed or self._is_only_timed(a))]
        ready = successes(self.models.get(for_timing, only_timed=True), failed)
        in_full = [arch for arch in archs if missing[arch] and arch not in for_timing]
        ready |= successes(self.models.get(in_full), failed)
        if LATENCY in wanted:
            to_time = {a: built for a, built in ready.items() if LATENCY in missing[a]}
            self._search_latencies(archs, to_time, failed)
        if THROUGHPUT in wanted:
            to_time = {a: ready[a] for a in ready if a not in failed and THROUGHPUT in missing[a]}
            self._search_throughputs(to_time, failed)
        to_score = {a: ready[a] for a in ready if a not in failed and scores & missing[a]}
        self._score(to_score, self.task.search, "search", failed)
        values = self._known_values([a for a in archs if a not in failed], wanted)
        return {arch.key: failed.get(arch) or values[arch.key] for arch in archs}

    def known_values(self, arch: Architecture, wanted: Iterable[str]) -> Values:
        """Return the known values of the search, by quantity.

        A latency is corrected by the jobs up to its own: see `TimingJobs.told_ms`.
        """
        return self._known_values([arch], list(wanted))[arch.key]

    def _known_values(
        self, archs: Sequence[Architecture], wanted: Collection[str]
    ) -> dict[str, Values]:
        values: dict[str, Values] = {}
        for key in (arch.key for arch in archs):
            found = {quantity: self.remembered(key, quantity) for quantity in wanted}
            values[key] = {q: known.value for q, known in found.items() if known is not None}
        timed = [key for key, known in values.items() if LATENCY in known]
        if timed:
            told = self.timing_jobs.told_ms(timed)
            for key in timed:
                values[key][LATENCY] = told[key]
        return values

    def latest_latencies(self) -> dict[str, Measurement]:
        """Return key -> latency of the search, corrected by all jobs so far."""
        return self.timing_jobs.corrected()

    def next_bridges(self, n_models: int) -> list[Architecture]:
        """Return architectures that the next timing job of n new ones repeats."""
        return self.latency_timer.next_bridges(n_models, self.timing_jobs, self.store)

    def _is_only_timed(self, arch: Architecture) -> bool:
        """Return whether an architecture has to be timed only."""
        scored = self.remembered(arch.key, self.task.metric.name)
        return not self.task.scores or (scored is not None and REUSED in scored.details)

    def score_missing(
        self, archs: Sequence[Architecture], samples: SplitSamples, purpose: Purpose
    ) -> None:
        """Build and score together what is not stored; failures are left to `scored`."""
        metric, store = self.task.metric.name, self.store
        contexts = {arch: self._context_of(arch, samples) for arch in archs}
        missing = [a for a in archs if not store.find(a.key, metric, contexts[a], purpose)]
        self._score(successes(self.models.get(missing), {}), samples, purpose, {})

    def _score(
        self,
        ready: Mapping[Architecture, BuiltModel],
        samples: SplitSamples,
        purpose: Purpose,
        failed: dict[Architecture, EvaluationError],
    ) -> None:
        """Score models together and store the scores; add errors to ``failed``."""
        models = {arch: built.path for arch, built in ready.items()}
        found = self.outcomes(models, samples) if models else {}
        for arch, scored in successes(found, failed).items():
            whole = replace(scored, cost_s=scored.cost_s + ready[arch].charge())
            context = self._context_of(arch, samples)
            measurements = score_measurements(arch.key, whole, self.task, context, purpose)
            self.store.add_all(measurements)

    def _search_latencies(
        self,
        archs: Sequence[Architecture],
        ready: Mapping[Architecture, BuiltModel],
        failed: dict[Architecture, EvaluationError],
    ) -> None:
        """Time the ready ones of architectures and store latencies; add errors to ``failed``."""
        counted = successes({a: attempt(self._macs, a) for a in archs if a not in failed}, failed)
        macs = {arch.key: n for arch, n in counted.items()}
        for arch in counted.keys() - ready.keys():
            if known := self.remembered(arch.key, LATENCY):
                self.pace.believe(known.value, macs[arch.key])
        timed = {arch: built for arch, built in ready.items() if arch in counted}
        found = self.latency_timer.search(
            timed, macs, self.timing_jobs, self.store, failed, self.seed, SEARCH
        )
        self.store.add_all(found)

    def _search_throughputs(
        self,
        ready: Mapping[Architecture, BuiltModel],
        failed: dict[Architecture, EvaluationError],
    ) -> None:
        """Time architectures at every batch size and store throughputs; add errors to ``failed``.

        Latencies that the search has measured are not measured again.
        """
        counted = successes({arch: attempt(self._macs, arch) for arch in ready}, failed)
        found = self._throughputs.search(
            {arch.key: ready[arch].path for arch in counted},
            {arch.key: n for arch, n in counted.items()},
            {arch.key: self.remembered(arch.key, LATENCY) for arch in counted},
            self.seed,
            SEARCH,
        )
        self.check_device(found.values())
        for arch, result in successes({arch: found[arch.key] for arch in counted}, failed).items():
            weights = {"weights": REPEATED_WEIGHTS} if ready[arch].only_timed else {}
            self.store.add(replace(result, details={**result.details, **weights}))

    def _macs(self, arch: Architecture) -> int:
        return int(self.net.exact("macs", self.net.space.architectures([arch]))[0])

    def confirm_latencies(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together, in a separate process, and store all results or none.

        The context names the set of models: another set has other measurements.
        """
        context = f"{self.latency_context}{_together(models)}"
        if known := self._confirmed(models, LATENCY, context):
            return known
        results, stored = self.latency_timer.confirm(models, context, self.seed + 1, settings)
        self.store.add_all(stored)
        return results

    def confirm_throughputs(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together at every batch size, and store all results or none.

        Latencies that `confirm_latencies` stored for these models are not measured again.
        """
        together = _together(models)
        context = f"{self._throughputs.context}{together}"
        if known := self._confirmed(models, THROUGHPUT, context):
            return known
        latencies = self._stored(models, LATENCY, f"{self.latency_context}{together}")
        timed = {key: path for key, path in models.items() if not latencies or key in latencies}
        results, stored = self._throughputs.confirm(
            timed, latencies, together, self.seed + 1, settings
        )
        self.check_device(results.values())
        self.store.add_all(stored)
        return results

    def _confirmed(
        self, models: Iterable[str], quantity: str, context: str
    ) -> dict[str, Measurement | DeviceError]:
        """Return the stored results of models that were timed together; empty if they were not."""
        stored = self._stored(models, quantity, context)
        failed = DeviceError("failed when the front was timed together")
        return {key: stored.get(key, failed) for key in models} if stored else {}

    def _stored(
        self, models: Iterable[str], quantity: str, context: str
    ) -> dict[str, Measurement]:
        found = {key: self.store.find(key, quantity, context, "confirm") for key in models}
        return {key: each for key, each in found.items() if each is not None}

    def seconds_each(self, quantities: Iterable[str]) -> float:
        """Estimate the seconds per architecture from a medium one and a few samples.

        Raises:
            EvaluationError: It cannot be evaluated.
        """
        spread = self.net.space.sample_spread(3, seed=0)
        arch = spread[len(spread) // 2]
        begin = time.perf_counter()
        model = self.files_of([arch])[arch.key]
        build_s = time.perf_counter() - begin
        scoring = self._scorer.estimate_cost_s(arch, model, self.task.search)
        models = 1.0 + BRIDGES_PER_MODEL if LATENCY in quantities else 0.0
        timing = models * SEARCH.seconds_per_model
        if THROUGHPUT in quantities:
            timing += SEARCH.seconds_per_model * self._throughputs.n_jobs(LATENCY in quantities)
        return build_s + scoring + timing

    def check_device(self, results: Iterable[object]) -> None:
        """Raise DeviceLostError if a result is an error and a model that ran before fails too."""
        if not any(isinstance(each, DeviceError) for each in results):
            return
        timed = [
            *self.store.measurements(quantity=LATENCY, purpose="search"),
            *self.store.measurements(quantity=THROUGHPUT, purpose="search"),
        ]
        scored = self.store.measurements(quantity=self.task.metric.name, purpose="search")
        own, lost = (self.latency_context, self._throughputs.context), self.latency_timer.lost
        here = [m for m in timed if m.context in own and m.key not in lost]
        known = next(iter(here if timed else scored), None)
        if known is None:
            return
        (arch,) = self.net.space.architectures([self.store.trial(known.key).choices])
        models = self.files_of([arch])
        try:
            if known.quantity in (LATENCY, THROUGHPUT):
                raised(self.device.measure(models, seed=self.seed, settings=SEARCH)[arch.key])
            else:
                few, _ = next(self.task.search.batches(1, self.net.input_spec(arch)))
                list(self.device.run(models[arch.key], [few]))
        except DeviceError as error:
            raise DeviceLostError(
                f"device {self.device.spec} fails on {arch.key} too, which it ran before: {error}"
            ) from error


def _together(models: Iterable[str]) -> str:
    """Return the end of the context of models that were timed together."""
    return f" together={digest_of_text('+'.join(sorted(models)))[:12]}"
