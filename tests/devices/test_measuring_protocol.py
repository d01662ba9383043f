import dataclasses
from itertools import combinations

import numpy as np
import pytest

from hwsearch.devices.base import MIN_ROUNDS, MeasureSettings
from hwsearch.devices.latency_statistics import (
    Rounds,
    TimedModel,
    batch_medians,
    estimate,
    estimate_latencies,
    half_widths_of,
)
from hwsearch.devices.protocol import sample_rounds, warm_up
from hwsearch.errors import InputError
from tests.devices.scripted_machine import ScriptedMachine

ANCHOR_S = 1e-3
DEVICE = {
    "device": "d",
    "fingerprint": "f",
    "baseline_s": np.full(50, ANCHOR_S),
    "baseline_path": "kept/here.json",
}
CALM = {"noise": 0.002, "wander": 0.0, "spikes": 0.0}


def measured(machine, *, seed=0, baseline_s=None, waited=0.0, settings=None):
    settings = settings or MeasureSettings()
    rng = np.random.default_rng(seed)
    n = len(machine.true_s) - 1
    rounds = sample_rounds(machine.run, n, 1, clock=machine.clock, rng=rng, settings=settings)
    origin = DEVICE if baseline_s is None else DEVICE | {"baseline_s": baseline_s}
    return summaries(rounds, waited=waited, settings=settings, origin=origin)


def summaries(rounds, *, waited=0.0, settings=None, origin=DEVICE):
    models = [
        TimedModel(inputs="x", wall_s=times_s.ravel(), waited=waited)
        for times_s in rounds.times_s[: rounds.n_models]
    ]
    settings = settings or MeasureSettings()
    return estimate_latencies(rounds, models, **origin, settings=settings, cost_s=1.0)


def machine_of(ratios, seed=0, **mood):
    return ScriptedMachine([ratio * ANCHOR_S for ratio in [*ratios, 1.0]], seed, **mood)


def test_intervals_cover_the_truth_and_rankings_are_right_on_a_restless_machine():
    ratios = [0.8, 0.85, 3.0]
    replays = 60
    settings = MeasureSettings(half_width=0.02)
    covered = {"between models": 0, "absolute": 0}
    right_orders, wrong_calls = 0, 0
    for seed in range(replays):
        noise = np.random.default_rng([seed, 9]).standard_normal(40)
        latencies = measured(
            machine_of(ratios, seed, noise=0.002),
            seed=seed,
            settings=settings,
            baseline_s=ANCHOR_S * np.exp(0.02 * noise),
        )
        for ratio, got in zip(ratios, latencies, strict=True):
            covered["absolute"] += got.low_ms <= ratio * ANCHOR_S * 1e3 <= got.high_ms
        for i, j in combinations(range(len(ratios)), 2):
            a, b = latencies[i], latencies[j]
            off = np.log(a.ratio / b.ratio) - np.log(ratios[i] / ratios[j])
            width = np.hypot(*(np.log(each.ratio_high / each.ratio) for each in (a, b)))
            covered["between models"] += abs(off) <= width
        right_orders += np.argsort([got.ratio for got in latencies]).tolist() == [0, 1, 2]
        wrong_calls += latencies[0].ratio_low > latencies[1].ratio_high
    for share in covered.values():
        assert 0.88 <= share / (replays * len(ratios)) <= 1.0
    assert right_orders / replays > 0.95
    assert wrong_calls == 0


def test_absolute_times_alone_would_be_wrong_here():
    """The script is as restless as it claims: one model's medians differ by a fifth and more."""
    medians = [np.median(measured(machine_of([1.0], seed))[0].times_ms) for seed in range(20)]
    assert max(medians) / min(medians) > 1.2


def test_a_calm_machine_is_done_at_the_first_look():
    machine = machine_of([0.4, 1.0, 2.0, 4.0], **CALM)
    latencies = measured(machine)
    assert all(got.rounds == MeasureSettings().first_look for got in latencies)
    assert all(got.warnings == () for got in latencies)
    assert machine.now < 2.5


def test_it_looks_only_when_the_rounds_have_doubled():
    told = []
    settings = MeasureSettings(half_width=0.008, seconds_per_model=1e3)
    rounds = sample_rounds(
        machine_of([1.0, 3.0], noise=0.05).run,
        2,
        1,
        clock=lambda: 0.0,
        rng=np.random.default_rng(0),
        settings=dataclasses.replace(settings, warmup_floor_s=0.0, warmup_ceiling_s=0.0),
        progress=lambda n, width: told.append((n, width)),
    )
    counts = [n for n, _ in told]
    assert counts == list(range(1, counts[-1] + 1))
    changes = [
        n
        for (n, now), (_, then) in zip(told[1:], told, strict=False)
        if now != then and now == now
    ]
    assert changes == [32 * 2**k for k in range(len(changes))]
    assert len(changes) >= 2
    assert counts[-1] == changes[-1] == len(rounds.times_s[0])
    assert told[-1][1] <= 0.008 < told[-2][1]


def test_it_stops_when_the_time_is_spent():
    settings = MeasureSettings(half_width=1e-6, seconds_per_model=0.5)
    machine = machine_of([1.0, 2.0])
    warm = machine_of([1.0, 2.0])
    warm_up(warm.run, 3, clock=warm.clock, rng=np.random.default_rng(0), settings=settings)
    latencies = measured(machine, settings=settings)
    assert 1.0 <= machine.now - warm.now < 1.2
    for got in latencies:
        assert any("time ran out" in warning and "±0.0%" in warning for warning in got.warnings)


def test_some_rounds_are_measured_however_slow_the_models():
    settings = MeasureSettings(seconds_per_model=0.01, warmup_ceiling_s=0.3)
    (got,) = measured(machine_of([2000.0], **CALM), settings=settings)
    assert got.rounds == got.runs == MIN_ROUNDS


def test_all_take_turns_in_every_round_in_changing_order():
    machine = machine_of([0.5, 1.0, 2.0], **CALM)
    (first, *_) = measured(machine)
    indices = [index for index, _ in machine.log][-4 * first.rounds :]
    orders = np.reshape(indices, (-1, 4))
    assert np.all(np.sort(orders, axis=1) == np.arange(4))
    assert len({tuple(order) for order in orders.tolist()}) > 8


@pytest.mark.parametrize(("typical_s", "uncounted", "counted"), [(1e-3, 2, 3), (5e-3, 1, 1)])
def test_the_first_runs_of_a_turn_are_not_counted(typical_s, uncounted, counted):
    def run(turns):
        return [
            np.full(n, typical_s)
            if n == 1
            else np.r_[[1.0] * uncounted, [typical_s] * (n - uncounted)]
            for _, n in turns
        ]

    settings = MeasureSettings(warmup_floor_s=0.0, warmup_ceiling_s=0.0)
    ticks = iter(range(10_000))
    rounds = sample_rounds(
        run, 1, 1, clock=lambda: next(ticks), rng=np.random.default_rng(0), settings=settings
    )
    for times_s in rounds.times_s:
        assert times_s.shape[1] == counted
        assert np.all(times_s == typical_s)


def test_all_turns_of_a_round_are_requested_at_once():
    requests = []

    def run(turns):
        requests.append(len(turns))
        return [np.full(n, 1e-3) for _, n in turns]

    ticks = iter(range(10_000))
    settings = MeasureSettings(warmup_floor_s=0.0, warmup_ceiling_s=0.0)
    rng = np.random.default_rng(0)
    sample_rounds(run, 3, 2, clock=lambda: next(ticks), rng=rng, settings=settings)
    assert set(requests) == {5}


@pytest.mark.parametrize(
    ("warmup_s", "shortest", "longest"), [(0.0, 0.3, 0.6), (0.8, 0.8, 1.6), (9.0, 1.9, 2.3)]
)
def test_warm_up_lasts_until_steady_within_floor_and_ceiling(warmup_s, shortest, longest):
    settings = MeasureSettings(warmup_floor_s=0.3, warmup_ceiling_s=2.0)
    machine = machine_of([1.0, 2.0], **CALM, warmup_s=0.0)
    cold = machine.true_s.copy()

    def run(turns):
        # Times fall until the warm-up is over, as caches fill and the clock rises.
        times_s = []
        for turn in turns:
            left = max(0.0, warmup_s - machine.now)
            machine.true_s = cold * (1 + 2 * left)
            times_s += machine.run([turn])
        return times_s

    rng = np.random.default_rng(0)
    turns = warm_up(run, 3, clock=machine.clock, rng=rng, settings=settings)
    assert shortest <= machine.now <= longest
    assert len(turns) == 3
    if warmup_s < 2:
        assert turns[0] == turns[2] == (2, 3)
        assert turns[1].counted in (1, 2)


def test_same_seed_same_orders():
    logs = []
    for _ in range(2):
        machine = machine_of([1.0, 2.0])
        measured(machine, seed=4)
        logs.append(machine.log)
    assert logs[0] == logs[1]


def rounds_of(models_s, anchor_s):
    times = [np.asarray(each, float)[:, None] * np.ones((1, 3)) for each in [*models_s, anchor_s]]
    return Rounds(times_s=tuple(times), n_models=len(models_s))


def summary_of(rounds, *, waited=0.0):
    (got,) = summaries(rounds, waited=waited)
    return got


def test_the_figure_is_the_median_of_ratios_times_the_baseline():
    # The median of ratios is 2 while the ratio of medians is 3: drift must cancel round by round.
    anchor_s = np.r_[1.0, 2, 3, 4, 5, 6, 7] * 1e-3
    model_s = anchor_s * np.r_[9, 2, 9, 2, 2, 1, 2]
    rounds = rounds_of([model_s], anchor_s)
    assert np.exp(np.subtract(*estimate(rounds).logs)) == pytest.approx(2.0, rel=0.2)
    got = summary_of(rounds)
    assert got.latency_ms == pytest.approx(got.ratio)
    assert got.anchor_ms == pytest.approx(4.0)
    assert got.baseline_ms == pytest.approx(1.0)


def test_what_slows_a_round_cancels_and_is_learned_from_all_models():
    """With one noisy anchor alone, ratios are as noisy as it is; ten models know better."""
    rng = np.random.default_rng(0)
    speed = np.exp(0.02 * rng.standard_normal(200))
    noisy = ANCHOR_S * speed * np.exp(0.05 * rng.standard_normal(200))
    calm = [ratio * ANCHOR_S * speed for ratio in np.linspace(0.5, 5, 10)]
    many = summaries(rounds_of(calm, noisy))
    alone = [summary_of(rounds_of([model], noisy)) for model in calm]
    assert max(got.cv for got in many) < 0.005
    assert min(got.cv for got in alone) > 0.03


def test_slowed_rounds_do_not_count():
    """What other work does differs from model to model, and does not cancel in a ratio."""
    slow = np.arange(60) % 3 == 0
    anchor_s = ANCHOR_S * np.where(slow, 1.5, 1.0)
    model_s = 2 * ANCHOR_S * np.where(slow, 1.8, 1.0)
    got = summary_of(rounds_of([model_s], anchor_s))
    assert got.ratio == pytest.approx(2.0, rel=1e-6)
    assert got.counted.tolist() == (~slow).tolist()
    assert got.undisturbed == pytest.approx(2 / 3)


def test_a_turn_is_its_tenth_percentile():
    times = np.tile([4e-3, 4e-3, *[9e-3] * 8, 9e-3], (20, 1))
    anchor_s = np.full((20, 1), ANCHOR_S)
    rounds = Rounds(times_s=(times, anchor_s), n_models=1)
    assert summary_of(rounds).ratio == pytest.approx(4.0)


def test_one_models_noise_does_not_become_anothers():
    rng = np.random.default_rng(1)
    wild = ANCHOR_S * np.exp(0.5 * rng.standard_normal(100))
    steady = [np.full(100, ratio * ANCHOR_S) for ratio in (1.0, 2.0, 4.0)]
    *calm, noisy = summaries(rounds_of([*steady, wild], np.full(100, ANCHOR_S)))
    assert [got.ratio for got in calm] == pytest.approx([1.0, 2.0, 4.0], rel=2e-3)
    assert all(got.ratio_high / got.ratio < 1.002 for got in calm)
    assert noisy.ratio_high / noisy.ratio > 1.05


def test_percentiles_are_those_of_single_runs_as_they_were():
    anchor_s = np.full(20, 2e-3)
    times = np.full((20, 10), 4e-3)
    times[:, 9] = 12e-3
    rounds = Rounds(times_s=(times, anchor_s[:, None]), n_models=1)
    got = summary_of(rounds)
    assert got.latency_ms == pytest.approx(2.0)
    assert (got.p50_ms, got.p99_ms) == pytest.approx((4.0, 12.0))
    assert got.times_ms.max() == pytest.approx(12.0)


def test_the_baselines_uncertainty_widens_only_the_absolute_interval():
    anchor_s = ANCHOR_S * np.exp(0.01 * np.random.default_rng(0).standard_normal(32))
    rounds = rounds_of([anchor_s[::-1] * 2], anchor_s)
    noisy = ANCHOR_S * np.exp(0.1 * np.random.default_rng(1).standard_normal(40))
    results = []
    for baseline_s in (np.full(40, np.median(noisy)), noisy):
        results += summaries(rounds, origin=DEVICE | {"baseline_s": baseline_s})
    exact, doubtful = results
    assert (exact.ratio_low, exact.ratio_high) == (doubtful.ratio_low, doubtful.ratio_high)
    assert doubtful.high_ms - doubtful.low_ms > 3 * (exact.high_ms - exact.low_ms)
    assert doubtful.baseline_low_ms < doubtful.baseline_ms < doubtful.baseline_high_ms


STEADY = np.full(32, ANCHOR_S)
RESTLESS = ANCHOR_S * (1 + 0.1 * np.arange(32) / 32)


@pytest.mark.parametrize(
    ("rounds", "waited", "expected"),
    [
        (rounds_of([STEADY * 2], STEADY), 0.05, []),
        (rounds_of([RESTLESS], STEADY), 0.0, ["rounds differ by 2.8%", "time ran out"]),
        (rounds_of([STEADY * 2], STEADY), 0.4, ["other work had the CPU for 40%"]),
        (rounds_of([STEADY / 20], STEADY), 0.0, ["0.05 ms"]),
        (rounds_of([STEADY[:8]], STEADY[:8]), 0.0, ["time ran out after 8 rounds"]),
        (rounds_of([STEADY * 1.3], STEADY * 1.3), 0.0, ["the anchor took 30% longer"]),
        (rounds_of([STEADY * 0.7], STEADY * 0.7), 0.0, ["the anchor was 30% faster"]),
    ],
)
def test_warnings_say_what_was_seen(rounds, waited, expected):
    warnings = summary_of(rounds, waited=waited).warnings
    assert len(warnings) == len(expected)
    for warning, start in zip(warnings, expected, strict=True):
        assert start in warning
        assert ":" in warning
        assert "\n" not in warning


def test_a_model_precise_enough_is_not_blamed_for_another_that_is_not():
    rng = np.random.default_rng(0)
    noisy = STEADY * np.exp(0.2 * rng.standard_normal(32))
    calm, doubtful = summaries(rounds_of([STEADY, STEADY, noisy], STEADY))[1:]
    assert calm.warnings == ()
    assert any("time ran out" in warning for warning in doubtful.warnings)


def test_a_faster_anchor_is_told_where_its_baseline_is():
    (warning,) = summary_of(rounds_of([STEADY * 0.5], STEADY * 0.5)).warnings
    assert "kept/here.json" in warning


def test_intervals_respect_that_neighbours_are_alike():
    """Rounds that resemble their neighbours give wider intervals than the same ones shuffled."""
    rng = np.random.default_rng(0)
    rounds = np.repeat(0.1 * rng.standard_normal((32, 50)), 8, axis=0)
    alike = half_widths_of(batch_medians(rounds))
    shuffled = half_widths_of(batch_medians(rng.permutation(rounds)))
    assert np.median(alike) > 1.5 * np.median(shuffled)


@pytest.mark.parametrize("n_rounds", [8, 32, 64, 256])
def test_intervals_of_independent_rounds_hold_the_median(n_rounds):
    values = np.random.default_rng(0).standard_normal((n_rounds, 4000))
    held = np.abs(np.median(values, axis=0)) <= half_widths_of(batch_medians(values))
    assert 0.93 <= np.mean(held) <= 0.97


def test_sessions_that_differ_make_intervals_wider():
    rng = np.random.default_rng(0)
    number, held = np.arange(120) % 3, {1: 0.0, 3: 0.0}
    for _ in range(60):
        logs = 0.005 * rng.standard_normal((120, 9)) + 0.003 * rng.standard_normal((3, 9))[number]
        times_s = tuple(np.exp(logs.T[:, :, None]))
        for sessions in held:
            got = estimate(Rounds(times_s=times_s, n_models=8, sessions=sessions))
            off, widths = got.logs - got.logs.mean(), got.half_widths
            held[sessions] += np.mean(np.abs(off) <= widths) / 60
    assert held[3] > 0.9
    assert held[1] < 0.8


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_width": 0},
        {"half_width": float("nan")},
        {"seconds_per_model": -1},
        {"burst_s": 0},
        {"hang_s": float("inf")},
        {"first_look": MIN_ROUNDS - 1},
        {"warmup_floor_s": 3.0},
        {"warmup_floor_s": -1.0},
        {"warmup_ceiling_s": float("inf")},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        MeasureSettings(**wrong)
