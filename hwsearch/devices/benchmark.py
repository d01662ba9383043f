"""One measuring job: models and the anchor in a worker process, started again when it is lost."""

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
from hwsearch.devices.latency_statistics import Origin, Subject, summarise
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
class Job:
    """Everything about a device that its measuring jobs share.

    Attributes:
        device: The device as written down.
        slug: The same for file names.
        fingerprint: What decides its latencies.
        start: Starts a worker process.
        options: What the device's runtime is told when it loads a model.
        batch: What a dynamic batch is fixed to.
        objective: The way of running, of those that the runtime knows, whose time is the latency.
        load_s: How much longer than an answer loading a model may take: engines are built then.
        clock: Tells the time.
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
        """Measure models together; see `hwsearch.devices.base.Device.measure`.

        A refusal, crash or hang is put down to the model at work. After a crash or hang the job
        starts again for the others, so that all latencies that come back are from one process. The
        anchor gets a second try, as what kills a process may come from outside.

        Raises:
            InputError: The cache folder for the baseline cannot be written.
        """
        start = self.clock()
        failed: dict[str, DeviceError] = {}
        measured: dict[str, Latency] = {}
        anchor_failures = 0
        while waiting := {name: path for name, path in models.items() if name not in failed}:
            attempt = _Attempt(self, waiting, settings)
            try:
                rounds = attempt.sample(np.random.default_rng(seed), progress)
            except DeviceError as error:
                failed |= attempt.failed
                if attempt.at_work is not None:
                    failed[attempt.at_work] = error
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
            latencies = summarise(
                rounds,
                attempt.subjects(len(rounds.times_s[0])),
                Origin(
                    device=self.device,
                    fingerprint=digest(self.fingerprint),
                    baseline_s=attempt.baseline_s,
                    baseline_at=str(attempt.baseline.path),
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
        """Have a worker load a model, from a file or from its content.

        Args:
            worker: Which one.
            number: How the model is called from then on.
            model: What is loaded.
            batch: What a dynamic batch becomes; the device's without one.
            timeout_s: For the answer.

        Returns:
            What the model is given in a timed run.

        Raises:
            DeviceError: The runtime refused it, or the worker is lost.
        """
        header = {"op": "load", "id": number, "options": dict(self.options)}
        header["batch"] = self.batch if batch is None else batch
        content = [np.frombuffer(model, np.uint8)] if isinstance(model, bytes) else []
        if isinstance(model, Path):
            header["path"] = str(model.absolute())
        reply, _ = worker.request(header, content, timeout_s=timeout_s + self.load_s)
        return str(reply["inputs"])


class _Attempt:
    """One worker process of a job, from start to its end or loss.

    Attributes:
        at_work: The model that the worker is busy with, None for the anchor.
        failed: Models that the runtime refused to load.
        inputs: What each loaded model is given, by name, in the order of its index.
        baseline: Where the anchor's baseline is kept.
        baseline_s: The anchor's baseline bursts.
    """

    def __init__(self, job: Job, models: Mapping[str, Path], settings: MeasureSettings) -> None:
        self._job = job
        self._models = models
        self._settings = settings
        self.at_work: str | None = None
        self.failed: dict[str, DeviceError] = {}
        self.inputs: dict[str, str] = {}
        self.baseline = Baseline(job.slug, job.fingerprint)
        self.baseline_s = np.empty(0)
        self._waiting = "included"
        self._spent_s: dict[str | None, Floats] = {}
        self._ways: dict[str | None, list[dict[str, float]]] = {}

    def sample(self, rng: np.random.Generator, progress: Progress | None) -> Rounds | None:
        """Load everything and measure; None when no model could be loaded.

        Raises:
            DeviceError: The worker was lost, or a model failed while it ran.
        """
        with self._job.start() as worker:
            self._waiting = worker.waiting
            hang_s = self._settings.hang_s
            self._job.load(worker, _ANCHOR, anchor_bytes(), batch=1, timeout_s=hang_s)
            self.baseline_s = self._baseline(worker)
            for name, path in self._models.items():
                self._load_model(worker, name, path)
            self.at_work = None
            if not self.inputs:
                return None
            return sample_rounds(
                self._runner(worker, [*self.inputs, None]),
                len(self.inputs),
                clock=self._job.clock,
                rng=rng,
                settings=self._settings,
                progress=progress,
            )

    def subjects(self, n_rounds: int) -> list[Subject]:
        """What is known of the loaded models after the rounds, in the order of their indices."""
        return [
            Subject(
                inputs=text, waited=self._waited(name), relative=self._relative(name, n_rounds)
            )
            for name, text in self.inputs.items()
        ]

    def _relative(self, name: str, n_rounds: int) -> dict[str, float]:
        bursts = self._ways[name][-n_rounds:]
        if len(bursts[0]) == 1:
            return {}
        # Within a burst the machine's mood is in both ways, and cancels.
        return {
            way: float(np.median([burst[way] / burst[self._job.objective] for burst in bursts]))
            for way in bursts[0]
        }

    def _waited(self, name: str) -> float | None:
        if self._waiting == "included":
            return None
        running_s, waiting_s = self._spent_s[name]
        return float(waiting_s / (running_s + waiting_s))

    def _load_model(self, worker: Worker, name: str, path: Path) -> None:
        self.at_work = name
        try:
            number, hang_s = len(self.inputs) + 1, self._settings.hang_s
            text = self._job.load(worker, number, path, timeout_s=hang_s)
        except DeviceError as error:
            if worker.lost:
                raise
            self.failed[name] = error
        else:
            self.inputs[name] = text

    def _baseline(self, worker: Worker) -> Floats:
        kept = self.baseline.load()
        if kept is not None:
            return kept
        clock, rng = self._job.clock, np.random.default_rng(0)
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
        logger.info("took the anchor's baseline on this machine: %s", self.baseline.path)
        return baseline_s

    def _runner(self, worker: Worker, entries: list[str | None]) -> Run:
        """Make the protocol's `run` for entries: names of loaded models, None for the anchor."""
        numbers = {name: number for number, name in enumerate(self.inputs, start=1)}
        slowest_s = dict.fromkeys(entries, 0.0)

        def run(index: int, n: int) -> Floats:
            name = self.at_work = entries[index]
            number = _ANCHOR if name is None else numbers[name]
            # Ten times its slowest run so far is still slow; more is no answer.
            allowed_s = self._settings.hang_s + 10 * n * slowest_s[name]
            header = {"op": "time", "id": number, "n": n}
            reply, spent_s = worker.request(header, timeout_s=allowed_s)
            ways = dict(zip(reply["ways"], spent_s, strict=True))
            typical_s = {way: float(np.median(times[0])) for way, times in ways.items()}
            self._ways.setdefault(name, []).append(typical_s)
            times_s, waits_s = ways[self._job.objective]
            all_s = np.sum([each.sum(axis=0) for each in spent_s], axis=0)
            slowest_s[name] = max(slowest_s[name], float(all_s.max()))
            spent = np.array([times_s.sum(), waits_s.sum()])
            self._spent_s[name] = self._spent_s.get(name, np.zeros(2)) + spent
            return np.asarray(times_s, dtype=np.float64)

        return run
