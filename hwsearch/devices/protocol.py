"""Measuring protocol: interleaved schedule, warm-up and stopping rule.

The speed of a shared machine changes by up to 40% within a minute. Therefore all models and the
anchors take turns of a few milliseconds, in a random order for each round, and the statistics
(`hwsearch.devices.latency_statistics`) separate the model from the round.

The protocol is independent of clock, process and runtime: `RunTurns` executes, `Clock` returns
seconds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hwsearch.devices.base import MIN_ROUNDS, MeasureSettings, Progress
from hwsearch.devices.latency_statistics import Floats, Rounds, estimate

RunTurns = Callable[[Sequence[tuple[int, int]]], list[Floats]]
"""``run([(index, n), ...])`` runs entry ``index`` ``n`` times and returns (n,) seconds of each."""
Clock = Callable[[], float]
"""Returns seconds since a fixed moment."""

_MAX_RUNS = 24
_SHORT_S = 10e-3
_STEADY_ROUNDS, _STEADY_CHANGE = 3, 0.02


class Turn(NamedTuple):
    """Numbers of runs of one entry in one round, in their order."""

    uncounted: int
    counted: int


def sample_rounds(
    run: RunTurns,
    n_models: int,
    n_anchors: int,
    *,
    sessions: int = 1,
    clock: Clock,
    rng: np.random.Generator,
    settings: MeasureSettings,
    progress: Progress | None = None,
) -> Rounds:
    """Warm up, then time models and anchors in rounds until the stopping rule holds.

    ``run`` executes the entries: ``n_models`` models, then the anchors. It uses the next one of
    their ``sessions`` in every call. At least five rounds are measured; ``progress`` is called
    after each.
    """
    turns = warm_up(run, n_models + n_anchors, clock=clock, rng=rng, settings=settings)
    deadline = clock() + settings.seconds_per_model * n_models
    rounds: list[list[Floats]] = []
    look, width, wanted = settings.first_look, np.nan, False
    while not wanted and (len(rounds) < MIN_ROUNDS or clock() < deadline):
        rounds.append(_one_round(run, turns, rng))
        if len(rounds) == look:
            width = float(
                estimate(_stack(rounds, n_models, sessions)).half_widths[:n_models].max()
            )
            wanted = width <= settings.half_width
            look *= 2
        if progress is not None:
            progress(len(rounds), width)
    return _stack(rounds, n_models, sessions)


def warm_up(
    run: RunTurns,
    n_entries: int,
    *,
    clock: Clock,
    rng: np.random.Generator,
    settings: MeasureSettings,
) -> list[Turn]:
    """Run all entries in turns until their times are steady; return each entry's turn.

    Steady means that the times of the last three rounds are within 2% of the three before, on
    average over the entries. The limits are in seconds, as caches, clocks and memory pools warm up
    with time and not with the number of runs.
    """
    start = clock()
    typical = np.array(run([(index, 1) for index in range(n_entries)]))[:, 0]
    history: list[Floats] = []
    while True:
        times_s = _one_round(run, choose_turns(typical, settings.burst_s), rng)
        history.append(np.array([np.median(each) for each in times_s]))
        typical = np.min(history, axis=0)  # equal models get equal turns, disturbed or not
        spent = clock() - start
        steady = spent >= settings.warmup_floor_s and _steady(history)
        if steady or spent >= settings.warmup_ceiling_s:
            return choose_turns(typical, settings.burst_s)


def choose_turns(typical_s: Floats, burst_s: float) -> list[Turn]:
    """Return the turn of each entry from its typical time, (n_entries,) seconds.

    In the first two runs of a turn the caches still hold the previous entry's data; of a model of
    10 ms and more, for which that is little, in the first one. These are not counted.
    """
    counted = np.clip(np.round(burst_s / np.maximum(typical_s, 1e-9)), 1, _MAX_RUNS)
    return [
        Turn(uncounted=2 if typical < _SHORT_S else 1, counted=int(n))
        for typical, n in zip(typical_s, counted, strict=True)
    ]


def _one_round(run: RunTurns, turns: Sequence[Turn], rng: np.random.Generator) -> list[Floats]:
    order = rng.permutation(len(turns)).tolist()
    times_s = run([(index, sum(turns[index])) for index in order])
    counted = {i: times[turns[i].uncounted :] for i, times in zip(order, times_s, strict=True)}
    return [counted[index] for index in range(len(turns))]


def _stack(rounds: list[list[Floats]], n_models: int, sessions: int) -> Rounds:
    times_s = tuple(np.stack(turns) for turns in zip(*rounds, strict=True))
    return Rounds(times_s=times_s, n_models=n_models, sessions=sessions)


def _steady(history: list[Floats]) -> bool:
    if len(history) < 2 * _STEADY_ROUNDS:
        return False
    logs = np.log(np.maximum(history[-2 * _STEADY_ROUNDS :], 1e-9))
    before, now = np.median(logs.reshape(2, _STEADY_ROUNDS, -1), axis=1)
    return bool(abs(np.mean(now - before)) < _STEADY_CHANGE)
