"""Benchmark of several models and the anchor in one worker process, restarted after a crash."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsearch.devices.anchor import Baseline, anchor_bytes
from hwsearch.devices.base import Fingerprint, Latency
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.intervals import Floats, undisturbed
from hwsearch.devices.latency_statistics import DeviceRecord, TimedModel, estimate_latencies
from hwsearch.devices.protocol import (
    Clock,
    MeasureSettings,
    Progress,
    Rounds,
    Run,
    sample_rounds,
    warm_up,
)
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, RUN, Options
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError

Results = dict[str, Latency | DeviceError]

logger = logging.getLogger(__name__)
_ANCHOR = 0
_BASELINE_S = 1.5
_ANCHOR_TRIES = 2
_TRANSFERS = {ON_DEVICE: "excluded", END_TO_END: "included"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Settings that all benchmarks of a device share.

    Attributes:
        start: Starts a worker process.
        options: Options of the runtime for every model.
        batch: Value of a dynamic batch.
        objective: Timing mode whose time is the latency.
        load_s: Additional time limit for loading a model, in which engines are built.
    """

    device: str
    slug: str
    fingerprint: Fingerprint
    start: Callable[[], Worker]
    options: Options
    batch: int
    objective: str = RUN
    load_s: float = 0.0
    clock: Clock = time.monotonic

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings,
        progress: Progress | None = None,
    ) -> Results:
        """Time models against each other; see `hwsearch.devices.base.Device.measure`.

        After a crash or hang, which is attributed to the model that was running, the benchmark
        starts again with the others: all returned latencies are from one process. The anchor gets
        a second try, as a process may be killed from outside.
        """
        start = self.clock()
        failed: dict[str, DeviceError] = {}
        measured: dict[str, Latency] = {}
        anchor_failures = 0
        while waiting := {name: path for name, path in models.items() if name not in failed}:
            attempt = Attempt(self, waiting, settings)
            try:
                rounds = attempt.sample(np.random.default_rng(seed), progress)
            except DeviceError as error:
                failed |= attempt.failed
                if attempt.running is not None:
                    failed[attempt.running] = error
                    continue
                anchor_failures += 1
                if anchor_failures == _ANCHOR_TRIES:
                    failed |= {
                        name: DeviceError(f"{self.device} fails on its own anchor model: {error}")
                        for name in waiting
                        if name not in failed
                    }
                continue
            failed |= attempt.failed
            if rounds is None:
                break
            latencies = estimate_latencies(
                rounds,
                attempt.timed_models(len(rounds.times_s[0])),
                DeviceRecord(
                    device=self.device,
                    fingerprint=digest(self.fingerprint),
                    baseline_s=attempt.baseline_s,
                    baseline_path=str(attempt.baseline.path),
                    transfers=_TRANSFERS.get(self.objective),
                ),
                rng=np.random.default_rng([seed, 1]),
                settings=settings,
                cost_s=(self.clock() - start) / len(models),
            )
            measured = dict(zip(attempt.inputs, latencies, strict=True))
            break
        return {name: measured[name] if name in measured else failed[name] for name in models}

    def load(
        self,
        worker: Worker,
        number: int,
        model: Path | bytes,
        *,
        batch: int | None = None,
        timeout_s: float,
    ) -> str:
        """Load a model as ``number`` in a worker process and return the specs of its inputs."""
        header = {"op": "load", "id": number, "options": dict(self.options)}
        header["batch"] = self.batch if batch is None else batch
        content = [np.frombuffer(model, np.uint8)] if isinstance(model, bytes) else []
        if isinstance(model, Path):
            header["path"] = str(model.absolute())
        reply, _ = worker.request(header, content, timeout_s=timeout_s + self.load_s)
        return str(reply["inputs"])


class Attempt:
    """One worker process of a benchmark or a profile, from its start to its end or loss.

    ``running`` is the model that the worker is executing, None for the anchor; ``inputs`` are the
    specs of inputs by model, in the order of the models' indices.
    """

    def __init__(
        self, benchmark: Benchmark, models: Mapping[str, Path], settings: MeasureSettings
    ) -> None:
        self._benchmark = benchmark
        self._models = models
        self._settings = settings
        self.running: str | None = None
        self.failed: dict[str, DeviceError] = {}
        self.inputs: dict[str, str] = {}
        self.baseline = Baseline(benchmark.slug, benchmark.fingerprint)
        self.baseline_s = np.empty(0)
        self._waiting = "included"
        self._spent_s: dict[str | None, Floats] = {}
        self._modes: dict[str | None, list[dict[str, float]]] = {}

    def sample(self, rng: np.random.Generator, progress: Progress | None) -> Rounds | None:
        """Load the models and time them; return None when none could be loaded."""
        with self._benchmark.start() as worker:
            self._waiting = worker.waiting
            hang_s = self._settings.hang_s
            self._benchmark.load(worker, _ANCHOR, anchor_bytes(), batch=1, timeout_s=hang_s)
            self.baseline_s = self._baseline(worker)
            self.load_models(worker)
            self.running = None
            if not self.inputs:
                return None
            return sample_rounds(
                self._runner(worker, [*self.inputs, None]),
                len(self.inputs),
                clock=self._benchmark.clock,
                rng=rng,
                settings=self._settings,
                progress=progress,
            )

    def load_models(self, worker: Worker) -> None:
        """Load the models and keep the errors of refused ones; raise where the worker is lost."""
        for name, path in self._models.items():
            self.running = name
            number, hang_s = len(self.inputs) + 1, self._settings.hang_s
            try:
                self.inputs[name] = self._benchmark.load(worker, number, path, timeout_s=hang_s)
            except DeviceError as error:
                if worker.lost:
                    raise
                self.failed[name] = error

    def numbers(self) -> dict[str, int]:
        """Return the number in the worker process of each loaded model."""
        return {name: number for number, name in enumerate(self.inputs, start=1)}

    def timed_models(self, n_rounds: int) -> list[TimedModel]:
        """Return the records of the loaded models besides their times, by index."""
        return [
            TimedModel(
                inputs=text, waited=self._waited(name), relative=self._relative(name, n_rounds)
            )
            for name, text in self.inputs.items()
        ]

    def _relative(self, name: str, n_rounds: int) -> dict[str, float]:
        bursts = self._modes[name][-n_rounds:]
        if len(bursts[0]) == 1:
            return {}
        # Both modes of a burst are disturbed alike, which the ratio cancels.
        return {
            mode: float(
                np.median([burst[mode] / burst[self._benchmark.objective] for burst in bursts])
            )
            for mode in bursts[0]
        }

    def _waited(self, name: str) -> float | None:
        if self._waiting == "included":
            return None
        running_s, waiting_s = self._spent_s[name]
        return float(waiting_s / (running_s + waiting_s))

    def _baseline(self, worker: Worker) -> Floats:
        kept = self.baseline.load()
        if kept is not None:
            return kept
        clock, rng = self._benchmark.clock, np.random.default_rng(0)
        run = self._runner(worker, [None])
        (size,) = warm_up(run, 1, clock=clock, rng=rng, settings=self._settings)
        bursts: list[float] = []
        deadline = clock() + _BASELINE_S
        while clock() < deadline or len(bursts) < 2:
            bursts.append(float(np.median(run(0, size))))
        taken = np.array(bursts)
        calm = taken[undisturbed(taken[:, None])[:, 0]]
        baseline_s = calm if len(calm) > 1 else taken
        self.baseline.save(baseline_s)
        logger.info("measured the anchor's baseline on this machine: %s", self.baseline.path)
        return baseline_s

    def _runner(self, worker: Worker, entries: list[str | None]) -> Run:
        """Return the protocol's `Run` for entries: names of loaded models, None for the anchor."""
        numbers = self.numbers()
        slowest_s = dict.fromkeys(entries, 0.0)

        def run(index: int, n: int) -> Floats:
            name = self.running = entries[index]
            number = _ANCHOR if name is None else numbers[name]
            # More than ten times the slowest run so far counts as a hang.
            allowed_s = self._settings.hang_s + 10 * n * slowest_s[name]
            header = {"op": "time", "id": number, "n": n}
            reply, spent_s = worker.request(header, timeout_s=allowed_s)
            modes = dict(zip(reply["modes"], spent_s, strict=True))
            typical_s = {mode: float(np.median(times[0])) for mode, times in modes.items()}
            self._modes.setdefault(name, []).append(typical_s)
            times_s, waits_s = modes[self._benchmark.objective]
            all_s = np.sum([each.sum(axis=0) for each in spent_s], axis=0)
            slowest_s[name] = max(slowest_s[name], float(all_s.max()))
            spent = np.array([times_s.sum(), waits_s.sum()])
            self._spent_s[name] = self._spent_s.get(name, np.zeros(2)) + spent
            return np.asarray(times_s, dtype=np.float64)

        return run
