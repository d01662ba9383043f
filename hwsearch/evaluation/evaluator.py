"""Values of a batch of architectures: stored ones are reused, others measured."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import onnx

from hwsearch.accuracy.scoring import Scored, Scorer
from hwsearch.accuracy.task import CALIBRATION_BATCH, SplitSamples, Task
from hwsearch.devices import Device, MeasureSettings
from hwsearch.devices.throughput import BATCH_SIZES, check_batch_sizes
from hwsearch.errors import DeviceError, DeviceLostError, EvaluationError
from hwsearch.evaluation.attempt import attempt, raised, successes
from hwsearch.evaluation.build import Builder, BuiltModel, BuiltModels
from hwsearch.evaluation.latency_timer import LatencyTimer, confirmed
from hwsearch.evaluation.measurements import (
    BATCH_LATENCY,
    LATENCY,
    THROUGHPUT,
    score_measurements,
)
from hwsearch.evaluation.outliers import Pace
from hwsearch.evaluation.throughput import throughput_measurement
from hwsearch.evaluation.timing_jobs import TimingJobs
from hwsearch.evaluation.timings import Timings
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
        batch_sizes: Those of a throughput, in ascending order.
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
        self.batch_sizes = check_batch_sizes(batch_sizes)
        self._timings = Timings()

    def use(self, store: Store) -> None:
        """Find and store measurements in another store from now on."""
        self.store, self._timings = store, Timings()

    @property
    def timings(self) -> Timings:
        """Return the timing jobs in the store."""
        return self._timings.read(self.store)

    @property
    def pace(self) -> Pace:
        """Return the pace of the accepted latencies."""
        return self.latency_timer.pace

    @property
    def latency_context(self) -> str:
        """Return what determines a latency besides the architecture."""
        return self.latency_timer.context

    @cached_property
    def _batch_timers(self) -> dict[int, LatencyTimer]:
        return {size: self.latency_timer.with_batch(size) for size in self.batch_sizes}

    def timers(self, quantities: Collection[str]) -> list[LatencyTimer]:
        """Return what times a latency or throughput, one for each batch size."""
        found = [self.latency_timer] if LATENCY in quantities else []
        if THROUGHPUT in quantities:
            found += self._batch_timers.values()
        return list(dict.fromkeys(found))

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
            return f"{self.latency_context} batches={','.join(map(str, self.batch_sizes))}"
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
        allows models with other weights, which are not scored. A batch size that two quantities
        need is timed once.
        """
        wanted, scores = set(quantities), {metric.name for metric in self.task.metrics}
        missing = {a: {q for q in wanted if not self.remembered(a.key, q)} for a in archs}
        failed: dict[Architecture, EvaluationError] = {}
        for_timing = [a for a in archs if missing[a] and (only_timed or self._is_only_timed(a))]
        ready = successes(self.models.get(for_timing, only_timed=True), failed)
        in_full = [arch for arch in archs if missing[arch] and arch not in for_timing]
        ready |= successes(self.models.get(in_full), failed)
        if timers := self.timers(wanted):
            counted = {a: attempt(self._macs, a) for a in archs if a not in failed}
            macs = successes(counted, failed)
            for timer in timers:
                timer.search(
                    ready, macs, self._jobs_of(timer), self.store, failed, self.seed, SEARCH
                )
        if THROUGHPUT in wanted:
            timed = [a for a in ready if a not in failed and THROUGHPUT in missing[a]]
            self.store.add_all(self._throughput(arch.key, "search") for arch in timed)
        to_score = {a: ready[a] for a in ready if a not in failed and scores & missing[a]}
        self._score(to_score, self.task.search, "search", failed)
        values = self._known_values([a for a in archs if a not in failed], wanted)
        return {arch.key: failed.get(arch) or values[arch.key] for arch in archs}

    def known_values(self, arch: Architecture, wanted: Iterable[str]) -> Values:
        """Return the known values of the search, by quantity.

        A latency or throughput is corrected by the jobs up to its own: see `Timings.told`.
        """
        return self._known_values([arch], list(wanted))[arch.key]

    def _known_values(
        self, archs: Sequence[Architecture], wanted: Collection[str]
    ) -> dict[str, Values]:
        values: dict[str, Values] = {}
        for key in (arch.key for arch in archs):
            found = {quantity: self.remembered(key, quantity) for quantity in wanted}
            values[key] = {q: known.value for q, known in found.items() if known is not None}
        for quantity in (LATENCY, THROUGHPUT):
            if timed := [key for key, known in values.items() if quantity in known]:
                for key, told in self.timings.told(quantity, timed).items():
                    values[key][quantity] = told
        return values

    def latest(self, quantity: str) -> dict[str, Measurement]:
        """Return key -> latency or throughput of the search, corrected by all jobs so far."""
        return self.timings.corrected(quantity)

    def timing_job(
        self, arch: Architecture, quantities: Collection[str]
    ) -> tuple[list[Measurement], list[Architecture]]:
        """Return the known latencies of an architecture, and bridges for measuring the others."""
        timers = self.timers(quantities)
        known = {timer: timer.known(arch.key, self.store) for timer in timers}
        missing = [timer for timer in timers if known[timer] is None]
        bridges = [
            bridge
            for timer in missing[:1]
            for bridge in timer.next_bridges(1, self._jobs_of(timer), self.store)
        ]
        return [latency for latency in known.values() if latency is not None], bridges

    def _jobs_of(self, timer: LatencyTimer) -> TimingJobs:
        return self.timings.jobs(timer.quantity, timer.context)

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

    def _throughput(self, key: str, purpose: Purpose, together: str = "") -> Measurement:
        """Return the throughput of a model from its stored latencies at all batch sizes."""
        timed = {}
        for size, timer in self._batch_timers.items():
            found = self.store.find(key, timer.quantity, f"{timer.context}{together}", purpose)
            assert found is not None
            timed[size] = found
        context = f"{self.search_context(THROUGHPUT)}{together}"
        return throughput_measurement(key, timed, context, purpose)

    def _macs(self, arch: Architecture) -> int:
        return int(self.net.exact("macs", self.net.space.architectures([arch]))[0])

    def confirm_latencies(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together; see `LatencyTimer.confirm`."""
        together, seed = _together(models), self.seed + 1
        return self.latency_timer.confirm(models, together, self.store, seed, settings)

    def confirm_throughputs(
        self, models: Mapping[str, Path], settings: MeasureSettings
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together at every batch size, in one job each; see `confirm_latencies`.

        Latencies that were confirmed for these models are not measured again.
        """
        together = _together(models)
        context = f"{self.search_context(THROUGHPUT)}{together}"
        if known := confirmed(self.store, models, THROUGHPUT, context):
            return known
        results: dict[str, Measurement | DeviceError] = {}
        for timer in self.timers([THROUGHPUT]):
            results |= timer.confirm(models, together, self.store, self.seed + 1, settings)
            models = {k: p for k, p in models.items() if isinstance(results[k], Measurement)}
        found = {key: self._throughput(key, "confirm", together) for key in models}
        self.store.add_all(found.values())
        return {**results, **found}

    def seconds_each(self, quantities: Collection[str]) -> float:
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
        timings = len(self.timers(quantities)) * (1.0 + BRIDGES_PER_MODEL)
        timing = timings * SEARCH.seconds_per_model
        return build_s + scoring + timing

    def check_device(self, results: Iterable[object]) -> None:
        """Raise DeviceLostError if a result is an error and a model that ran before fails too."""
        if not any(isinstance(each, DeviceError) for each in results):
            return
        timed = [
            *self.store.measurements(quantity=LATENCY, purpose="search"),
            *self.store.measurements(quantity=BATCH_LATENCY, purpose="search"),
        ]
        scored = self.store.measurements(quantity=self.task.metric.name, purpose="search")
        batched = any(m.quantity == BATCH_LATENCY for m in timed)
        timers = self.timers([LATENCY, THROUGHPUT] if batched else [LATENCY])
        lost = {key for timer in timers for key in timer.lost}
        own = {timer.context for timer in timers}
        here = [m for m in timed if m.context in own and m.key not in lost]
        known = next(iter(here if timed else scored), None)
        if known is None:
            return
        (arch,) = self.net.space.architectures([self.store.trial(known.key).choices])
        models = self.files_of([arch])
        try:
            if known.quantity in (LATENCY, BATCH_LATENCY):
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
