"""Kernel times of models: where the time of a run goes, node by node."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwsearch.devices.base import Profile
from hwsearch.devices.benchmark import Job
from hwsearch.devices.intervals import Floats
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError

_TURN = 4
_TIMEOUT_S = 60.0


def profile_models(
    job: Job, models: Mapping[str, Path], *, runs: int
) -> dict[str, Profile | DeviceError]:
    """Profile models in turns, in one process of their own.

    Each turn's first run is not counted, nor is the first turn. Of the counted runs those remain
    that waited no longer for a CPU than the median one: kernel times include the waiting.

    Args:
        job: The device's; its runtime must be one that profiles.
        models: ONNX files by name.
        runs: Counted runs per model, at least 1.

    Returns:
        For each name, in the order given, its profile or why there is none. As in measuring, a
        model that is refused, crashes or hangs does not touch the others.
    """
    job = replace(job, options={**job.options, "profile": True})
    done: dict[str, Profile | DeviceError] = {}
    while waiting := {name: path for name, path in models.items() if name not in done}:
        attempt = _Attempt(job, runs)
        try:
            done |= attempt.profile(waiting)
        except DeviceError as error:
            lost = [attempt.at_work] if attempt.at_work is not None else list(waiting)
            done |= dict.fromkeys(lost, error)
        done |= attempt.refused
    return {name: done[name] for name in models}


class _Attempt:
    """One worker process that profiles, from start to its end or loss.

    Attributes:
        at_work: The model that the worker is busy with; None before the first.
        refused: Models that the runtime refused to load.
    """

    def __init__(self, job: Job, runs: int) -> None:
        self._job = job
        self._turns = [_TURN] * (runs // _TURN) + ([runs % _TURN] if runs % _TURN else [])
        self.at_work: str | None = None
        self.refused: dict[str, DeviceError] = {}

    def profile(self, models: Mapping[str, Path]) -> dict[str, Profile]:
        """Load all, run them in turns, and read their profiles.

        Raises:
            DeviceError: The worker was lost, or a model failed while it ran.
        """
        rng = np.random.default_rng(0)
        with self._job.start() as worker:
            numbers = self._load(worker, models)
            spent_s: dict[str, list[Floats]] = {name: [] for name in numbers}
            for turn in (_TURN, *self._turns):
                for name in rng.permutation(list(numbers)).tolist():
                    self.at_work = name
                    header = {"op": "profile", "id": numbers[name], "n": turn + 1}
                    spent_s[name] += worker.request(header, timeout_s=_TIMEOUT_S)[1]
            return {
                name: self._read(worker, name, number, spent_s[name])
                for name, number in numbers.items()
            }

    def _load(self, worker: Worker, models: Mapping[str, Path]) -> dict[str, int]:
        numbers = {}
        for number, (name, path) in enumerate(models.items()):
            self.at_work = name
            try:
                self._job.load(worker, number, path, timeout_s=_TIMEOUT_S)
            except DeviceError as error:
                if worker.lost:
                    raise
                self.refused[name] = error
            else:
                numbers[name] = number
        return numbers

    def _read(self, worker: Worker, name: str, number: int, spent_s: list[Floats]) -> Profile:
        self.at_work = name
        header = {"op": "profiled", "id": number}
        reply, (nodes_s,) = worker.request(header, timeout_s=_TIMEOUT_S)
        took_s, waited_s = np.concatenate(spent_s, axis=1)
        counted = np.concatenate(
            [np.zeros(_TURN + 1, bool), *(np.arange(n + 1) > 0 for n in self._turns)]
        )
        kept = counted & (waited_s <= np.median(waited_s[counted]))
        means_ms = _middle_mean(nodes_s[kept]) * 1e3
        return Profile(
            nodes_ms=dict(zip(reply["nodes"], means_ms.tolist(), strict=True)),
            total_ms=float(_middle_mean(took_s[kept])) * 1e3,
        )


def _middle_mean(values: Floats) -> Floats:
    """Mean over the first axis of the middle half of values.

    A kernel that was interrupted once takes many times as long, which a mean does not forget; a
    median of whole microseconds is coarse.
    """
    ordered = np.sort(values, axis=0)
    outer = len(values) // 4
    return np.asarray(ordered[outer : len(values) - outer].mean(axis=0), dtype=np.float64)
