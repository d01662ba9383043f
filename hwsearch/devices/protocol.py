"""Measuring protocol: interleaved schedule, warm-up and stopping rule.

The speed of a shared machine changes by up to 40% within a minute. Therefore models and a fixed
anchor model take turns in short bursts, in a random order for each round, and each time is divided
by the anchor's time of the same round, which cancels what slows both alike. Rounds in which a
model or the anchor was disturbed count only where there are no others.

The protocol is independent of clock, process and runtime: `Run` executes, `Clock` returns seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwsearch.devices.intervals import (
    Bools,
    Floats,
    median_draws,
    percentile_interval,
    undisturbed,
)
from hwsearch.errors import InputError

Run = Callable[[int, int], Floats]
"""``run(index, n)`` runs entry ``index`` ``n`` times and returns (n,) seconds."""
Clock = Callable[[], float]
"""Returns seconds since a fixed moment."""
Progress = Callable[[int, float], None]
"""``progress(n_rounds, half_width)`` after each round, with the largest relative half-width at the
last check of the stopping rule, NaN before the first one."""

MIN_ROUNDS = 5
_MIN_RUNS, _MAX_RUNS = 3, 64
_STEADY_ROUNDS, _STEADY_CHANGE = 3, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """Precision and time limits of a benchmark.

    Attributes:
        half_width: Requested half-width of every model's 95% ratio interval, relative to the
            ratio.
        seconds_per_model: Time limit of the rounds, multiplied by the number of models.
        first_look: Number of rounds at the first check of the stopping rule, which doubles for
            each further check: checking after every round would stop at chance minima.
        burst_s: Approximate duration of one model's turn.
        warmup_floor_s: Shortest warm-up.
        warmup_ceiling_s: Longest warm-up, steady or not.
        hang_s: Time beyond the usual duration of a burst after which the runtime counts as hung.

    Raises:
        InputError: A value is out of its range.
    """

    half_width: float = 0.015
    seconds_per_model: float = 3.0
    first_look: int = 16
    burst_s: float = 0.01
    warmup_floor_s: float = 0.3
    warmup_ceiling_s: float = 2.0
    hang_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("half_width", "seconds_per_model", "burst_s", "hang_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, not {value!r}")
        if self.first_look < MIN_ROUNDS:
            raise InputError(f"first_look must be at least {MIN_ROUNDS}, not {self.first_look!r}")
        if not 0 <= self.warmup_floor_s <= self.warmup_ceiling_s < np.inf:
            raise InputError(
                "warm-up needs 0 <= warmup_floor_s <= warmup_ceiling_s, not "
                f"{self.warmup_floor_s!r} and {self.warmup_ceiling_s!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounds:
    """Times of all rounds of a benchmark.

    Attributes:
        times_s: One (n_rounds, n_runs) array per entry, seconds; the anchor's is the last.
        wanted: Whether every interval reached the requested width within the time limit.
    """

    times_s: tuple[Floats, ...]
    wanted: bool

    def bursts_s(self) -> Floats:
        """Return median times of bursts: (n_rounds, n_entries) seconds, the anchor last."""
        return np.stack([np.median(times, axis=1) for times in self.times_s], axis=1)

    def ratios(self) -> Floats:
        """Return times relative to the anchor's in the same round: (n_rounds, n_models)."""
        bursts = self.bursts_s()
        return np.asarray(bursts[:, :-1] / bursts[:, -1:], dtype=np.float64)

    def counted(self) -> Bools:
        """Return which rounds count for which model: (n_rounds, n_models).

        These are the rounds without disturbance of model and anchor; all where those are under
        five.
        """
        calm = undisturbed(self.bursts_s())
        both: Bools = calm[:, :-1] & calm[:, -1:]
        both[:, both.sum(axis=0) < MIN_ROUNDS] = True
        return both

    def medians(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return median ratios, (n_models,), and their bootstraps, (2000, n_models)."""
        pairs = zip(self.ratios().T, self.counted().T, strict=True)
        columns = [ratios[counted] for ratios, counted in pairs]
        draws = [median_draws(column[:, None], rng) for column in columns]
        return np.array([np.median(column) for column in columns]), np.concatenate(draws, axis=1)


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
    run: Run,
    n_entries: int,
    *,
    clock: Clock,
    rng: np.random.Generator,
    settings: MeasureSettings,
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
