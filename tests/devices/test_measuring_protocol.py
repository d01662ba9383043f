import dataclasses

import numpy as np
import pytest

from hwsearch.devices.base import MIN_ROUNDS, MeasureSettings
from hwsearch.devices.latency_statistics import (
    Rounds,
    TimedModel,
    estimate_latencies,
    median_draws,
    percentile_interval,
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
    rounds = sample_rounds(machine.run, n, clock=machine.clock, rng=rng, settings=settings)
    origin = DEVICE if baseline_s is None else DEVICE | {"baseline_s": baseline_s}
    models = [TimedModel(inputs="x", waited=waited)] * n
    return estimate_latencies(rounds, models, **origin, rng=rng, settings=settings, cost_s=1.0)


def machine_of(ratios, seed=0, **mood):
    return ScriptedMachine([ratio * ANCHOR_S for ratio in [*ratios, 1.0]], seed, **mood)


def test_intervals_cover_the_truth_and_rankings_are_right_on_a_restless_machine():
    ratios = [0.8, 0.85, 3.0]
    replays = 60
    settings = MeasureSettings(half_width=0.02)
    covered = {"ratio": 0, "absolute": 0}
    right_orders, wrong_calls = 0, 0
    for seed in range(replays):
        noise = np.random.default_rng([seed, 9]).standard_normal(40)
        latencies = measured(
            machine_of(ratios, seed),
            seed=seed,
            settings=settings,
            baseline_s=ANCHOR_S * np.exp(0.02 * noise),
        )
        for ratio, got in zip(ratios, latencies, strict=True):
            covered["ratio"] += got.ratio_low <= ratio <= got.ratio_high
            covered["absolute"] += got.low_ms <= ratio * ANCHOR_S * 1e3 <= got.high_ms
        right_orders += np.argsort([got.ratio for got in latencies]).tolist() == [0, 1, 2]
        wrong_calls += latencies[0].ratio_low > latencies[1].ratio_high
    for share in covered.values():
        assert 0.88 <= share / (replays * len(ratios)) <= 0.995
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
    assert changes == [16 * 2**k for k in range(len(changes))]
    assert len(changes) >= 2
    assert counts[-1] == changes[-1] == len(rounds.ratios())
    assert rounds.wanted
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
    assert got.rounds == MIN_ROUNDS
    assert got.runs == MIN_ROUNDS * 3


def test_all_take_turns_in_every_round_in_changing_order():
    machine = machine_of([0.5, 1.0, 2.0], **CALM)
    (first, *_) = measured(machine)
    indices = [index for index, _ in machine.log][-4 * first.rounds :]
    orders = np.reshape(indices, (-1, 4))
    assert np.all(np.sort(orders, axis=1) == np.arange(4))
    assert len({tuple(order) for order in orders.tolist()}) > 8


def test_the_first_run_of_a_burst_is_not_counted():
    def run(index, n):
        return np.r_[1.0, np.full(n - 1, 0.001)]

    settings = MeasureSettings(warmup_floor_s=0.0, warmup_ceiling_s=0.0)
    ticks = iter(range(10_000))
    rounds = sample_rounds(
        run, 1, clock=lambda: next(ticks), rng=np.random.default_rng(0), settings=settings
    )
    assert all(np.all(times == 0.001) for times in rounds.times_s)


@pytest.mark.parametrize(
    ("warmup_s", "shortest", "longest"), [(0.0, 0.3, 0.6), (0.8, 0.8, 1.6), (9.0, 1.9, 2.3)]
)
def test_warm_up_lasts_until_steady_within_floor_and_ceiling(warmup_s, shortest, longest):
    settings = MeasureSettings(warmup_floor_s=0.3, warmup_ceiling_s=2.0)
    machine = machine_of([1.0, 2.0], **CALM, warmup_s=0.0)
    cold = machine.true_s.copy()

    def run(index, n):
        # Times fall until the warm-up is over, as caches fill and the clock rises.
        left = max(0.0, warmup_s - machine.now)
        machine.true_s = cold * (1 + 2 * left)
        return machine.run(index, n)

    rng = np.random.default_rng(0)
    sizes = warm_up(run, 3, clock=machine.clock, rng=rng, settings=settings)
    assert shortest <= machine.now <= longest
    assert len(sizes) == 3
    if warmup_s < 2:
        assert sizes == [10, 5, 10]


def test_same_seed_same_orders():
    logs = []
    for _ in range(2):
        machine = machine_of([1.0, 2.0])
        measured(machine, seed=4)
        logs.append(machine.log)
    assert logs[0] == logs[1]


def rounds_of(models_s, anchor_s, *, wanted=True):
    times = [np.asarray(each, float)[:, None] * np.ones((1, 3)) for each in [*models_s, anchor_s]]
    return Rounds(times_s=tuple(times), wanted=wanted)


def summary_of(rounds, *, waited=0.0):
    rng = np.random.default_rng(0)
    models = [TimedModel(inputs="x", waited=waited)]
    (got,) = estimate_latencies(
        rounds, models, **DEVICE, rng=rng, settings=MeasureSettings(), cost_s=1.0
    )
    return got


def test_the_figure_is_the_median_of_ratios_times_the_baseline():
    # The median of ratios is 2 while the ratio of medians is 3: drift must cancel round by round.
    anchor_s = np.r_[1.0, 2, 3, 4, 5, 6, 7] * 1e-3
    model_s = anchor_s * np.r_[9, 2, 9, 2, 2, 1, 2]
    got = summary_of(rounds_of([model_s], anchor_s))
    assert got.ratio == 2.0
    assert got.latency_ms == pytest.approx(2.0)
    assert got.anchor_ms == pytest.approx(4.0)
    assert got.baseline_ms == pytest.approx(1.0)


def test_percentiles_are_on_the_scale_of_the_baseline():
    anchor_s = np.full(20, 2e-3)
    times = np.full((20, 10), 4e-3)
    times[:, 9] = 12e-3
    rounds = Rounds(times_s=(times, anchor_s[:, None]), wanted=True)
    got = summary_of(rounds)
    assert got.latency_ms == pytest.approx(2.0)
    assert got.p99_ms == pytest.approx(6.0)
    assert got.times_ms.max() == pytest.approx(12.0)


def test_the_baselines_uncertainty_widens_only_the_absolute_interval():
    anchor_s = ANCHOR_S * np.exp(0.01 * np.random.default_rng(0).standard_normal(32))
    rounds = rounds_of([anchor_s[::-1] * 2], anchor_s)
    noisy = ANCHOR_S * np.exp(0.2 * np.random.default_rng(1).standard_normal(40))
    results = []
    for baseline_s in (np.full(40, np.median(noisy)), noisy):
        (got,) = estimate_latencies(
            rounds,
            [TimedModel(inputs="x", waited=None)],
            **DEVICE | {"baseline_s": baseline_s},
            rng=np.random.default_rng(0),
            settings=MeasureSettings(),
            cost_s=1.0,
        )
        results.append(got)
    exact, doubtful = results
    assert (exact.ratio_low, exact.ratio_high) == (doubtful.ratio_low, doubtful.ratio_high)
    assert doubtful.high_ms - doubtful.low_ms > 3 * (exact.high_ms - exact.low_ms)
    assert doubtful.baseline_low_ms < doubtful.baseline_ms < doubtful.baseline_high_ms


STEADY = np.full(16, ANCHOR_S)
RESTLESS = ANCHOR_S * (1 + 0.1 * np.arange(16) / 16)


@pytest.mark.parametrize(
    ("rounds", "waited", "expected"),
    [
        (rounds_of([STEADY * 2], STEADY), 0.05, []),
        (rounds_of([RESTLESS], STEADY), 0.0, ["rounds differ by 2.8%"]),
        (rounds_of([STEADY * 2], STEADY), 0.4, ["other work had the CPU for 40%"]),
        (rounds_of([STEADY / 20], STEADY), 0.0, ["0.05 ms"]),
        (rounds_of([STEADY[:8]], STEADY[:8], wanted=False), 0.0, ["time ran out after 8 rounds"]),
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
    noisy = STEADY * np.exp(0.2 * rng.standard_normal(16))
    rounds = rounds_of([STEADY, noisy], STEADY, wanted=False)
    models = [TimedModel(inputs="x", waited=None)] * 2
    calm, doubtful = estimate_latencies(
        rounds, models, **DEVICE, rng=rng, settings=MeasureSettings(), cost_s=1.0
    )
    assert calm.warnings == ()
    assert any("time ran out" in warning for warning in doubtful.warnings)


def test_a_faster_anchor_is_told_where_its_baseline_is():
    (warning,) = summary_of(rounds_of([STEADY * 0.5], STEADY * 0.5)).warnings
    assert "kept/here.json" in warning


def test_bootstrap_draws_respect_blocks():
    """Rounds that resemble their neighbours give wider intervals than the same ones shuffled."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.exp(0.1 * rng.standard_normal(64)), 4)[:, None]
    shuffled = rng.permutation(runs)
    widths = []
    for values in (runs, shuffled):
        low, high = percentile_interval(median_draws(values, np.random.default_rng(1)))
        widths.append(float((high - low)[0]))
    assert widths[0] > 1.3 * widths[1]


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
