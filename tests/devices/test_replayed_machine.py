"""The protocol on recorded noise of a real machine, without a clock."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from hwsearch.devices.base import MeasureSettings
from hwsearch.devices.latency_statistics import TimedModel, estimate_latencies
from hwsearch.devices.protocol import sample_rounds
from tests.devices.replayed_machine import DATA, TRACES, ReplayedMachine

REPLAYS = 80  # of which every fourth is enough to see a mistake
SOME, ALL = range(0, REPLAYS, 4), range(REPLAYS)
DEVICE = {
    "device": "d",
    "fingerprint": "f",
    "baseline_s": np.full(50, 1e-3),
    "baseline_path": "kept/here.json",
}


@cache
def replay(trace, seed, waiting):
    """Measure the recorded models once, beginning at another place for every seed."""
    machine = ReplayedMachine(trace, seed / REPLAYS, waiting=waiting)
    settings = MeasureSettings(seconds_per_model=14.0)
    rng = np.random.default_rng(seed)
    n = len(machine.true_ratios)
    rounds = sample_rounds(machine.run, n, clock=machine.clock, rng=rng, settings=settings)
    models = [TimedModel(inputs="x", waited=0.0)] * n
    return machine.true_ratios, estimate_latencies(
        rounds, models, **DEVICE, rng=rng, settings=settings, cost_s=1.0
    )


@pytest.mark.parametrize("waiting", [False, True], ids=["waiting taken out", "waiting included"])
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("seeds", [SOME, pytest.param(ALL, marks=pytest.mark.slow)], ids=len)
def test_ranking_is_right_and_intervals_cover_the_truth(trace, waiting, seeds):
    covered, right, wrong_calls, n = 0, 0, 0, 0
    for seed in seeds:
        truth, latencies = replay(trace, seed, waiting)
        covered += sum(
            got.ratio_low <= true <= got.ratio_high
            for got, true in zip(latencies, truth, strict=True)
        )
        right += np.argsort([g.ratio for g in latencies]).tolist() == np.argsort(truth).tolist()
        ends = [(g.ratio_low, g.ratio_high) for g in latencies]
        wrong_calls += any(a[0] > b[1] for a, b in pairwise(ends))
        n += len(truth)
    assert 0.90 <= covered / n <= 0.99
    assert right == len(seeds)
    assert wrong_calls == 0


def test_medians_of_all_rounds_are_further_off_beside_other_tenants():
    """Which of two speeds a median falls into is luck."""
    errors = {"counted": [], "all": []}
    for seed in SOME:
        truth, latencies = replay(TRACES[1], seed, False)
        for true, got in zip(truth, latencies, strict=True):
            errors["counted"].append(got.ratio / true - 1)
            errors["all"].append(np.median(got.ratios) / true - 1)
    assert np.std(errors["counted"]) < 0.9 * np.std(errors["all"])


def test_the_traces_are_those_of_busy_machines():
    """Absolute times mean little there."""
    walls = []
    for trace in TRACES:
        with np.load(DATA / trace) as found:
            walls.append(found["run_us"].astype(float) + found["waited_us"])
    restless, two_speed = walls
    assert np.mean(restless > 1.4 * np.median(restless, axis=0)) > 0.03
    parts = np.array_split(two_speed, 40)
    medians = np.array([np.median(part, axis=0) for part in parts])
    assert (medians.max(axis=0) / medians.min(axis=0)).max() > 1.2
