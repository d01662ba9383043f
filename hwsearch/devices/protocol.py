"""Measuring protocol: interleaved schedule, warm-up and stopping rule.

The speed of a shared machine changes by up to 40% within a minute. Therefore models and a fixed
anchor model take turns in short bursts, in a random order for each round, and each time is divided
by the anchor's time of the same round, which cancels what slows both alike. Rounds in which a
model or the anchor was disturbed count only where there are no others.

The protocol is independent of clock, process and runtime: `Run` executes, `Clock` returns seconds.
"""

from collections.abc import Callable

import numpy as np

from hwsearch.devices.base import MIN_ROUNDS, MeasureSettings, Progress
from hwsearch.devices.latency_statistics import Floats, Rounds, percentile_interval

Run = Callable[[int, int], Floats]
"""``run(index, n)`` runs entry ``index`` ``n`` times and returns (n,) seconds."""
Clock = Callable[[], float]
"""Returns seconds since a fixed moment."""

_MIN_RUNS, _MAX_RUNS = 3, 64
_STEADY_ROUNDS, _STEADY_CHANGE = 3, 0.02


def sample_rounds(
    run: Run,
    n_models: int,
    *,
    clock: Clock,
    rng: np.random.Generator,
    settings: MeasureSettings,
    progress: Progress | None = None,
) -> Rounds:
    """Warm up, then time models and the anchor in rounds until the stopping rule holds.

    ``run`` executes entries 0 to ``n_models - 1``, the models, and ``n_models``, the anchor. At
    least five rounds are measured; ``progress`` is called after each.
    """
    sizes = warm_up(run, n_models + 1, clock=clock, rng=rng, settings=settings)
    deadline = clock() + settings.seconds_per_model * n_models
    rounds: list[list[Floats]] = []
    look, width, wanted = settings.first_look, np.nan, False
    while not wanted and (len(rounds) < MIN_ROUNDS or clock() < deadline):
        rounds.append(_one_round(run, sizes, rng))
        if len(rounds) == look:
            middle, draws = _stack(rounds, wanted=False).medians(rng)
            low, high = percentile_interval(draws)
            width = float(((high - low) / 2 / middle).max())
            wanted = width <= settings.half_width
            look *= 2
        if progress is not None:
            progress(len(rounds), width)
    return _stack(rounds, wanted=wanted)


def warm_up(
    run: Run, n_entries: int, *, clock: Clock, rng: np.random.Generator, settings: MeasureSettings
) -> list[int]:
    """Run all entries in turns until their times are steady; return each entry's runs per burst.

    Steady means that the times of the last three rounds are within 2% of the three before, on
    average over the entries. The limits are in seconds, as caches, clocks and memory pools warm up
    with time and not with the number of runs.
    """
    start = clock()
    typical = np.array([np.median(run(index, 1)) for index in range(n_entries)])
    history: list[Floats] = []
    while True:
        bursts = _one_round(run, _burst_sizes(typical, settings.burst_s), rng)
        history.append(np.array([np.median(times) for times in bursts]))
        typical = np.median(history[-_STEADY_ROUNDS:], axis=0)
        spent = clock() - start
        steady = spent >= settings.warmup_floor_s and _steady(history)
        if steady or spent >= settings.warmup_ceiling_s:
            return _burst_sizes(typical, settings.burst_s)


def _one_round(run: Run, sizes: list[int], rng: np.random.Generator) -> list[Floats]:
    bursts: dict[int, Floats] = {}
    for index in rng.permutation(len(sizes)).tolist():
        # In the first run the caches hold the previous entry's data: it is not counted.
        bursts[index] = run(index, sizes[index] + 1)[1:]
    return [bursts[index] for index in range(len(sizes))]


def _stack(rounds: list[list[Floats]], *, wanted: bool) -> Rounds:
    times = tuple(np.stack(bursts) for bursts in zip(*rounds, strict=True))
    return Rounds(times_s=times, wanted=wanted)


def _burst_sizes(typical_s: Floats, burst_s: float) -> list[int]:
    runs = np.round(burst_s / np.maximum(typical_s, 1e-9))
    return [int(n) for n in np.clip(runs, _MIN_RUNS, _MAX_RUNS)]


def _steady(history: list[Floats]) -> bool:
    if len(history) < 2 * _STEADY_ROUNDS:
        return False
    logs = np.log(np.maximum(history[-2 * _STEADY_ROUNDS :], 1e-9))
    before, now = np.median(logs.reshape(2, _STEADY_ROUNDS, -1), axis=1)
    return bool(abs(np.mean(now - before)) < _STEADY_CHANGE)
