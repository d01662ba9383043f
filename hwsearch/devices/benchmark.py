"""Benchmark of several models and the anchors in one worker process."""

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.devices.anchor import Baseline, anchors
from hwsearch.devices.base import Latency, MeasureSettings, Profile, Progress
from hwsearch.devices.latency_statistics import (
    Floats,
    TimedModel,
    estimate_latencies,
    middle_mean,
)
from hwsearch.devices.protocol import RunTurns, sample_rounds
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Options
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError

logger = logging.getLogger(__name__)
_BASELINE = MeasureSettings(half_width=0.002, seconds_per_model=3.0)
_TURN = 4
_PROFILE_S = 60.0
_TRANSFERS = {ON_DEVICE: "excluded", END_TO_END: "included"}


@dataclass(slots=True, eq=False)
class Entry:
    """A loaded model, or an anchor, whose ``name`` is None, and what its turns have told.

    Attributes:
        numbers: Numbers of its sessions in the worker process.
        slowest_s: Longest run so far.
        spent_s: Running and waiting time of each run, (2, n_runs) for every turn.
        modes_s: Median time in each timing mode, for every turn.
    """

    name: str | None
    numbers: tuple[int, ...]
    inputs: str
    slowest_s: float = 0.0
    spent_s: list[Floats] = field(default_factory=list)
    modes_s: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class Benchmark:
    """Models that take turns in one worker process, from its start to its end or loss.

    Attributes:
        device: Spec of the device.
        baseline: The anchors' baseline on it.
        options: Options of the runtime for every model.
        batch: Value of a dynamic batch.
        objective: Timing mode whose time is the latency.
        sessions: In how many sessions a model that is timed is loaded. Where its tensors lie in
            memory differs between them, and with it the time of a short model by up to 2%.
        load_s: Additional time limit for loading a model, in which engines are built.
        worker: The process, set before anything else is called.
        running: The model that it executes, None for an anchor.
        loaded: Accepted models, in the order of their indices.
        failed: Reasons of the refused models.
    """

    device: str
    baseline: Baseline
    models: Mapping[str, Path]
    settings: MeasureSettings
    options: Options
    batch: int
    objective: str
    load_s: float
    sessions: int = 1
    worker: Worker = field(init=False)
    running: str | None = None
    loaded: dict[str, Entry] = field(default_factory=dict)
    failed: dict[str, DeviceError] = field(default_factory=dict)

    def latencies(self, seed: int, start: float, progress: Progress | None) -> dict[str, Latency]:
        """Time the models and the anchors; return the latencies of the accepted ones.

        ``start`` is the time on the monotonic clock from which on the costs are counted.
        """
        fixed = [self._load(None, data, batch=1, sessions=self.sessions) for data in anchors()]
        baseline_s = self._baseline(fixed)
        self._load_models(self.sessions)
        self.running = None
        if not self.loaded:
            return {}
        rounds = sample_rounds(
            self._runner([*self.loaded.values(), *fixed]),
            len(self.loaded),
            len(fixed),
            sessions=self.sessions,
            clock=time.monotonic,
            rng=np.random.default_rng(seed),
            settings=self.settings,
            progress=progress,
        )
        estimated = estimate_latencies(
            rounds,
            [
                self._timed(entry, *times_s.shape)
                for entry, times_s in zip(self.loaded.values(), rounds.times_s, strict=False)
            ],
            device=self.device,
            fingerprint=self.baseline.digest,
            baseline_s=baseline_s,
            baseline_path=str(self.baseline.path),
            transfers=_TRANSFERS.get(self.objective),
            settings=self.settings,
            cost_s=(time.monotonic() - start) / len(self.models),
        )
        return dict(zip(self.loaded, estimated, strict=True))

    def profile(self, runs: int) -> dict[str, Profile]:
        """Time the nodes of models in turns; see `hwsearch.devices.base.Profiling.profile`.

        The first turn and the first run of each turn are not counted. Kernel times include waiting
        for a CPU, so of the counted runs the half that waited least is used.
        """
        self._load_models(sessions=1)
        rng = np.random.default_rng(0)
        turns = [_TURN] * (runs // _TURN) + ([runs % _TURN] if runs % _TURN else [])
        spent_s: dict[str, list[Floats]] = {name: [] for name in self.loaded}
        for turn in (_TURN, *turns):
            for name in rng.permutation(list(self.loaded)).tolist():
                self.running, (number, *_) = name, self.loaded[name].numbers
                spent = self.worker.call("time_profiled", number, turn + 1, timeout_s=_PROFILE_S)
                spent_s[name].append(spent)
        counted = np.concatenate([[False] * (_TURN + 1), *(np.arange(n + 1) > 0 for n in turns)])
        profiles = {}
        for name, entry in self.loaded.items():
            self.running = name
            nodes, nodes_s = self.worker.call(
                "read_profile", entry.numbers[0], timeout_s=_PROFILE_S
            )
            took_s, waited_s = np.concatenate(spent_s[name], axis=1)
            kept = counted & (waited_s <= np.median(waited_s[counted]))
            means_ms = middle_mean(nodes_s[kept]) * 1e3
            profiles[name] = Profile(
                nodes_ms=dict(zip(nodes, means_ms.tolist(), strict=True)),
                total_ms=float(middle_mean(took_s[kept])) * 1e3,
            )
        return profiles

    def _load_models(self, sessions: int) -> None:
        """Load the models and keep the errors of refused ones; raise where the worker is lost."""
        for name, path in self.models.items():
            self.running = name
            try:
                self.loaded[name] = self._load(
                    name, str(path.absolute()), batch=self.batch, sessions=sessions
                )
            except DeviceError as error:
                if self.worker.lost:
                    raise
                self.failed[name] = error

    def _timed(self, entry: Entry, n_rounds: int, n_counted: int) -> TimedModel:
        """Return the record of a model besides its running times, of the last rounds' turns."""
        turns, objective = entry.modes_s[-n_rounds:], self.objective
        running_s, waiting_s = np.stack(
            [spent[:, -n_counted:] for spent in entry.spent_s[-n_rounds:]], axis=1
        )
        wall_s = (running_s + waiting_s).ravel()
        accounted = self.worker.waiting == "taken out"
        # Both modes of a turn are disturbed alike, which the ratio cancels.
        relative = {
            mode: float(np.median([turn[mode] / turn[objective] for turn in turns]))
            for mode in turns[0]
        }
        return TimedModel(
            inputs=entry.inputs,
            wall_s=wall_s,
            waited=float(waiting_s.sum() / wall_s.sum()) if accounted else None,
            relative=relative if len(relative) > 1 else {},
        )

    def _load(self, name: str | None, source: str | bytes, *, batch: int, sessions: int) -> Entry:
        limit_s = self.settings.hang_s + self.load_s
        loaded = [
            self.worker.call("load", source, batch, self.options, timeout_s=limit_s)
            for _ in range(sessions)
        ]
        return Entry(name, tuple(number for number, _ in loaded), loaded[0][1])

    def _baseline(self, fixed: Sequence[Entry]) -> Floats:
        """Return the kept times of the first anchor's turns, or else measure and keep them."""
        kept = self.baseline.load()
        if kept is not None:
            return kept
        rounds = sample_rounds(
            self._runner(fixed),
            1,
            len(fixed) - 1,
            sessions=self.sessions,
            clock=time.monotonic,
            rng=np.random.default_rng(0),
            settings=_BASELINE,
        )
        baseline_s = np.exp(rounds.logs()[:, 0])
        self.baseline.save(baseline_s)
        logger.info("measured the anchor's baseline on this machine: %s", self.baseline.path)
        return baseline_s

    def _runner(self, entries: Sequence[Entry]) -> RunTurns:
        rounds = itertools.count()

        def run(turns: Sequence[tuple[int, int]]) -> list[Floats]:
            session = next(rounds) % self.sessions
            # All are sent at once, so that the worker does not wait for this process in between.
            sent = []
            for index, n in turns:
                entry = entries[index]
                # More than ten times the slowest run so far counts as a hang.
                limit_s = self.settings.hang_s + 10 * n * entry.slowest_s
                reply = self.worker.send("time", entry.numbers[session], n, timeout_s=limit_s)
                sent.append((entry, reply, limit_s))
            return [self._received(*each) for each in sent]

        return run

    def _received(self, entry: Entry, reply: "Future[Any]", limit_s: float) -> Floats:
        """Wait for the times of one turn; return its running times, (n_runs,) seconds."""
        self.running = entry.name
        modes = self.worker.receive(reply, timeout_s=limit_s)
        entry.modes_s.append({mode: float(np.median(t[0])) for mode, t in modes.items()})
        all_s = np.sum([spent_s.sum(axis=0) for spent_s in modes.values()], axis=0)
        entry.slowest_s = max(entry.slowest_s, float(all_s.max()))
        spent_s: Floats = modes[self.objective]
        entry.spent_s.append(spent_s)
        return np.asarray(spent_s[0], dtype=np.float64)
