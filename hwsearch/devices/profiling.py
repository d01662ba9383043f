"""Profiles of models: kernel times of single nodes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwsearch.devices.base import MeasureSettings, Profile
from hwsearch.devices.benchmark import Attempt, Benchmark
from hwsearch.devices.latency_statistics import Floats
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

    def profiles(attempt: Attempt) -> dict[str, Profile]:
        with benchmark.start() as worker:
            attempt.load_models(worker)
            return _profile(attempt, worker, runs)

    return benchmark.in_one_process(models, MeasureSettings(), profiles)


def _profile(attempt: Attempt, worker: Worker, runs: int) -> dict[str, Profile]:
    """Run loaded models in turns and read their profiles."""
    rng = np.random.default_rng(0)
    turns = [_TURN] * (runs // _TURN) + ([runs % _TURN] if runs % _TURN else [])
    spent_s: dict[str, list[Floats]] = {name: [] for name in attempt.loaded}
    for turn in (_TURN, *turns):
        for name in rng.permutation(list(attempt.loaded)).tolist():
            attempt.running, number = name, attempt.loaded[name].number
            spent = worker.call("time_profiled", number, turn + 1, timeout_s=_TIMEOUT_S)
            spent_s[name].append(spent)
    uncounted = np.zeros(_TURN + 1, bool)
    counted = np.concatenate([uncounted, *(np.arange(n + 1) > 0 for n in turns)])
    profiles = {}
    for name, entry in attempt.loaded.items():
        attempt.running = name
        nodes, nodes_s = worker.call("read_profile", entry.number, timeout_s=_TIMEOUT_S)
        took_s, waited_s = np.concatenate(spent_s[name], axis=1)
        kept = counted & (waited_s <= np.median(waited_s[counted]))
        means_ms = _middle_mean(nodes_s[kept]) * 1e3
        profiles[name] = Profile(
            nodes_ms=dict(zip(nodes, means_ms.tolist(), strict=True)),
            total_ms=float(_middle_mean(took_s[kept])) * 1e3,
        )
    return profiles


def _middle_mean(values: Floats) -> Floats:
    """Return the mean of the middle half of values along the first axis.

    It is robust against interrupted kernels, and finer than a median of whole microseconds.
    """
    ordered = np.sort(values, axis=0)
    outer = len(values) // 4
    return np.asarray(ordered[outer : len(values) - outer].mean(axis=0), dtype=np.float64)
