"""Benchmark of several models and the anchor in one worker process, restarted after a crash."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from hwsearch.devices.anchor import Baseline, anchor_bytes
from hwsearch.devices.base import Latency, MeasureSettings, Profile, Progress
from hwsearch.devices.latency_statistics import (
    DeviceRecord,
    Floats,
    Rounds,
    TimedModel,
    estimate_latencies,
    middle_mean,
    undisturbed,
)
from hwsearch.devices.model_check import refusal
from hwsearch.devices.protocol import Run, sample_rounds, warm_up
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Options
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError

Result = TypeVar("Result", Latency, Profile)
logger = logging.getLogger(__name__)
_BASELINE_S = 1.5
_TURN = 4
_PROFILE_S = 60.0
_TRANSFERS = {ON_DEVICE: "excluded", END_TO_END: "included"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Settings that all benchmarks of a device share.

    Attributes:
        device: Spec of the device.
        precision: Precision of the files that it takes.
        fingerprint: Digest of its fingerprint.
        baseline: The anchor's baseline on it.
        start: Starts a worker process.
        options: Options of the runtime for every model.
        batch: Value of a dynamic batch.
        objective: Timing mode whose time is the latency.
        load_s: Additional time limit for loading a model, in which engines are built.
    """

    device: str
    precision: str
    fingerprint: str
    baseline: Baseline
    start: Callable[[], Worker]
    options: Options
    batch: int
    objective: str
    load_s: float

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Time models against each other; see `hwsearch.devices.base.Device.measure`."""
        start = time.monotonic()

        def latencies(attempt: Attempt) -> dict[str, Latency]:
            rounds = attempt.sample(np.random.default_rng(seed), progress)
            if rounds is None:
                return {}
            n_rounds = len(rounds.times_s[0])
            estimated = estimate_latencies(
                rounds,
                [attempt.timed(entry, n_rounds) for entry in attempt.loaded.values()],
                DeviceRecord(
                    device=self.device,
                    fingerprint=self.fingerprint,
                    baseline_s=attempt.baseline_s,
                    baseline_path=str(self.baseline.path),
                    transfers=_TRANSFERS.get(self.objective),
                ),
                rng=np.random.default_rng([seed, 1]),
                settings=settings,
                cost_s=(time.monotonic() - start) / len(models),
            )
            return dict(zip(attempt.loaded, estimated, strict=True))

        return self.in_one_process(models, settings, latencies)

    def profile(
        self, models: Mapping[str, Path], *, runs: int
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models in turns; see `hwsearch.devices.base.Profiling.profile`.

        The first turn and the first run of each turn are not counted. Of the counted runs, those
        are used that waited for a CPU at most as long as the median one, as kernel times include
        waiting.
        """
        profiled = replace(self, options={**self.options, "profile": True})
        return profiled.in_one_process(models, MeasureSettings(), lambda each: each.profile(runs))

    def in_one_process(
        self,
        models: Mapping[str, Path],
        settings: MeasureSettings,
        work: "Callable[[Attempt], Mapping[str, Result]]",
    ) -> "dict[str, Result | DeviceError]":
        """Return the results of ``work`` on models in one worker process, or their errors.

        After a crash or hang, which is attributed to the model that was running, all starts again
        with the others. Where none was running there is a second try, as a process may be killed
        from outside.
        """
        done: dict[str, Result | DeviceError] = {
            name: error
            for name, path in models.items()
            if (error := refusal(path, self.device, self.precision))
        }
        retried = False
        while waiting := {name: path for name, path in models.items() if name not in done}:
            attempt = Attempt(self, waiting, settings)
            try:
                with self.start() as attempt.worker:
                    done |= work(attempt)
            except DeviceError as error:
                if attempt.running is not None:
                    done[attempt.running] = error
                elif retried:
                    where = f"{self.device} fails at its start or on its own anchor model"
                    done |= dict.fromkeys(waiting, DeviceError(f"{where}: {error}"))
                else:
                    retried = True
            done |= attempt.failed
        return {name: done[name] for name in models}


@dataclass(slots=True, eq=False)
class Entry:
    """A loaded model, or the anchor, whose ``name`` is None, and what its bursts have told.

    Attributes:
        number: Its number in the worker process.
        inputs: Names, types and shapes of its inputs.
        slowest_s: Longest run so far.
        spent_s: Total running time and waiting time.
        modes_s: Median time in each timing mode, for every burst.
    """

    name: str | None
    number: int
    inputs: str
    slowest_s: float = 0.0
    spent_s: Floats = field(default_factory=lambda: np.zeros(2))
    modes_s: list[dict[str, float]] = field(default_factory=list)


class Attempt:
    """One worker process of a benchmark or a profile, from its start to its end or loss.

    ``running`` is the model that the worker is executing, None for the anchor; ``loaded`` are the
    accepted models in the order of their indices, ``failed`` the refused ones.
    """

    def __init__(
        self, benchmark: Benchmark, models: Mapping[str, Path], settings: MeasureSettings
    ) -> None:
        self._benchmark, self._models, self._settings = benchmark, models, settings
        self.worker: Worker
        self.running: str | None = None
        self.loaded: dict[str, Entry] = {}
        self.failed: dict[str, DeviceError] = {}
        self.baseline_s = np.empty(0)

    def sample(self, rng: np.random.Generator, progress: Progress | None) -> Rounds | None:
        """Load the models and time them; return None when none could be loaded."""
        anchor = self._load(None, anchor_bytes(), batch=1)
        self.baseline_s = self._baseline(anchor)
        self._load_models()
        self.running = None
        if not self.loaded:
            return None
        return sample_rounds(
            self._runner([*self.loaded.values(), anchor]),
            len(self.loaded),
            clock=time.monotonic,
            rng=rng,
            settings=self._settings,
            progress=progress,
        )

    def profile(self, runs: int) -> dict[str, Profile]:
        """Load the models, run them in turns, and read their profiles."""
        self._load_models()
        rng = np.random.default_rng(0)
        turns = [_TURN] * (runs // _TURN) + ([runs % _TURN] if runs % _TURN else [])
        spent_s: dict[str, list[Floats]] = {name: [] for name in self.loaded}
        for turn in (_TURN, *turns):
            for name in rng.permutation(list(self.loaded)).tolist():
                self.running, number = name, self.loaded[name].number
                spent = self.worker.call("time_profiled", number, turn + 1, timeout_s=_PROFILE_S)
                spent_s[name].append(spent)
        uncounted = np.zeros(_TURN + 1, bool)
        counted = np.concatenate([uncounted, *(np.arange(n + 1) > 0 for n in turns)])
        profiles = {}
        for name, entry in self.loaded.items():
            self.running = name
            nodes, nodes_s = self.worker.call("read_profile", entry.number, timeout_s=_PROFILE_S)
            took_s, waited_s = np.concatenate(spent_s[name], axis=1)
            kept = counted & (waited_s <= np.median(waited_s[counted]))
            means_ms = middle_mean(nodes_s[kept]) * 1e3
            profiles[name] = Profile(
                nodes_ms=dict(zip(nodes, means_ms.tolist(), strict=True)),
                total_ms=float(middle_mean(took_s[kept])) * 1e3,
            )
        return profiles

    def _load_models(self) -> None:
        """Load the models and keep the errors of refused ones; raise where the worker is lost."""
        for name, path in self._models.items():
            self.running = name
            try:
                source = str(path.absolute())
                self.loaded[name] = self._load(name, source, batch=self._benchmark.batch)
            except DeviceError as error:
                if self.worker.lost:
                    raise
                self.failed[name] = error

    def timed(self, entry: Entry, n_rounds: int) -> TimedModel:
        """Return the record of a model besides its times, of the last ``n_rounds`` bursts."""
        running_s, waiting_s = entry.spent_s
        bursts, objective = entry.modes_s[-n_rounds:], self._benchmark.objective
        accounted = self.worker.waiting == "taken out"
        # Both modes of a burst are disturbed alike, which the ratio cancels.
        relative = {
            mode: float(np.median([burst[mode] / burst[objective] for burst in bursts]))
            for mode in bursts[0]
        }
        return TimedModel(
            inputs=entry.inputs,
            waited=float(waiting_s / (running_s + waiting_s)) if accounted else None,
            relative=relative if len(relative) > 1 else {},
        )

    def _load(self, name: str | None, source: str | bytes, *, batch: int) -> Entry:
        limit_s = self._settings.hang_s + self._benchmark.load_s
        given = (source, batch, self._benchmark.options)
        number, inputs = self.worker.call("load", *given, timeout_s=limit_s)
        return Entry(name, number, inputs)

    def _baseline(self, anchor: Entry) -> Floats:
        baseline = self._benchmark.baseline
        kept = baseline.load()
        if kept is not None:
            return kept
        run, rng = self._runner([anchor]), np.random.default_rng(0)
        (size,) = warm_up(run, 1, clock=time.monotonic, rng=rng, settings=self._settings)
        bursts: list[float] = []
        deadline = time.monotonic() + _BASELINE_S
        while time.monotonic() < deadline or len(bursts) < 2:
            bursts.append(float(np.median(run(0, size))))
        taken = np.array(bursts)
        calm = taken[undisturbed(taken[:, None])[:, 0]]
        baseline_s = calm if len(calm) > 1 else taken
        baseline.save(baseline_s)
        logger.info("measured the anchor's baseline on this machine: %s", baseline.path)
        return baseline_s

    def _runner(self, entries: Sequence[Entry]) -> Run:
        """Return the protocol's `Run` for these entries."""

        def run(index: int, n: int) -> Floats:
            entry = entries[index]
            self.running = entry.name
            # More than ten times the slowest run so far counts as a hang.
            limit_s = self._settings.hang_s + 10 * n * entry.slowest_s
            modes = self.worker.call("time", entry.number, n, timeout_s=limit_s)
            entry.modes_s.append({mode: float(np.median(t[0])) for mode, t in modes.items()})
            all_s = np.sum([spent_s.sum(axis=0) for spent_s in modes.values()], axis=0)
            entry.slowest_s = max(entry.slowest_s, float(all_s.max()))
            spent_s = modes[self._benchmark.objective]
            entry.spent_s += spent_s.sum(axis=1)
            return np.asarray(spent_s[0], dtype=np.float64)

        return run
