"""Profiles of models: kernel times of single nodes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwsearch.devices.base import Profile
from hwsearch.devices.benchmark import Benchmark
from hwsearch.devices.intervals import Floats
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError

_TURN = 4
_TIMEOUT_S = 60.0


def profile_models(
    benchmark: Benchmark, models: Mapping[str, Path], *, runs: int
) -> dict[str, Profile | DeviceError]:
    """Profile models in turns in one process; see `hwsearch.devices.base.Profiling.profile`.

    The first turn and the first run of each turn are not counted. Of the counted runs, those are
    used that waited for a CPU at most as long as the median one, as kernel times include waiting.
    """
    benchmark = replace(benchmark, options={**benchmark.options, "profile": True})
    done: dict[str, Profile | DeviceError] = {}
    while waiting := {name: path for name, path in models.items() if name not in done}:
        attempt = _Attempt(benchmark, runs)
        try:
            done |= attempt.profile(waiting)
        except DeviceError as error:
            lost = [attempt.running] if attempt.running is not None else list(waiting)
            done |= dict.fromkeys(lost, error)
        done |= attempt.refused
    return {name: done[name] for name in models}


class _Attempt:
    """One worker process that profiles, from its start to its end or loss.

    ``running`` is the model that the worker is executing; None before the first.
    """

    def __init__(self, benchmark: Benchmark, runs: int) -> None:
        self._benchmark = benchmark
        self._turns = [_TURN] * (runs // _TURN) + ([runs % _TURN] if runs % _TURN else [])
        self.running: str | None = None
        self.refused: dict[str, DeviceError] = {}

    def profile(self, models: Mapping[str, Path]) -> dict[str, Profile]:
        """Load models, run them in turns and read their profiles."""
        rng = np.random.default_rng(0)
        with self._benchmark.start() as worker:
            numbers = self._load(worker, models)
            spent_s: dict[str, list[Floats]] = {name: [] for name in numbers}
            for turn in (_TURN, *self._turns):
                for name in rng.permutation(list(numbers)).tolist():
                    self.running = name
                    header = {"op": "profile", "id": numbers[name], "n": turn + 1}
                    spent_s[name] += worker.request(header, timeout_s=_TIMEOUT_S)[1]
            return {
                name: self._read(worker, name, number, spent_s[name])
                for name, number in numbers.items()
            }

    def _load(self, worker: Worker, models: Mapping[str, Path]) -> dict[str, int]:
        numbers = {}
        for number, (name, path) in enumerate(models.items()):
            self.running = name
            try:
                self._benchmark.load(worker, number, path, timeout_s=_TIMEOUT_S)
            except DeviceError as error:
                if worker.lost:
                    raise
                self.refused[name] = error
            else:
                numbers[name] = number
        return numbers

    def _read(self, worker: Worker, name: str, number: int, spent_s: list[Floats]) -> Profile:
        self.running = name
        header = {"op": "read profile", "id": number}
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
    """Return the mean of the middle half of values along the first axis.

    It is robust against interrupted kernels, and finer than a median of whole microseconds.
    """
    ordered = np.sort(values, axis=0)
    outer = len(values) // 4
    return np.asarray(ordered[outer : len(values) - outer].mean(axis=0), dtype=np.float64)
