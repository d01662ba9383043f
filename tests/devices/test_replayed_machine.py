"""The protocol on recorded noise of a real machine, without a clock."""

from itertools import pairwise

import numpy as np
import pytest

from hwsearch.devices.protocol import MeasureSettings, sample_rounds
from hwsearch.devices.summary import Origin, Subject, summarise
from tests.devices.replayed_machine import TRACE, ReplayedMachine

REPLAYS = 80
ORIGIN = Origin(
    device="d", fingerprint="f", baseline_s=np.full(50, 1e-3), baseline_at="kept/here.json"
)


def replay(seed, waiting):
    """Measure the recorded models once, beginning at another place for every seed."""
    machine = ReplayedMachine(seed / REPLAYS, waiting=waiting)
    settings = MeasureSettings(seconds_per_model=14.0)
    rng = np.random.default_rng(seed)
    n = len(machine.true_ratios)
    rounds = sample_rounds(machine.run, n, clock=machine.clock, rng=rng, settings=settings)
    subjects = [Subject(inputs="x", waited=0.0)] * n
    return machine.true_ratios, summarise(
        rounds, subjects, ORIGIN, rng=rng, settings=settings, cost_s=1.0
    )


@pytest.mark.parametrize("waiting", [False, True], ids=["waiting taken out", "waiting included"])
def test_ranking_is_right_and_intervals_cover_the_truth(waiting):
    covered, right, wrong_calls, n = 0, 0, 0, 0
    for seed in range(REPLAYS):
        truth, latencies = replay(seed, waiting)
        covered += sum(
            got.ratio_low <= true <= got.ratio_high
            for got, true in zip(latencies, truth, strict=True)
        )
        right += np.argsort([g.ratio for g in latencies]).tolist() == np.argsort(truth).tolist()
        ends = [(g.ratio_low, g.ratio_high) for g in latencies]
        wrong_calls += any(a[0] > b[1] for a, b in pairwise(ends))
        n += len(truth)
    assert 0.90 <= covered / n <= 0.99
    assert right == REPLAYS
    assert wrong_calls == 0


def test_the_trace_is_one_of_a_busy_machine():
    """Absolute times mean little there: single runs, and the medians of seconds, are far apart."""
    with np.load(TRACE) as trace:
        run, waited = trace["run_us"].astype(float), trace["waited_us"].astype(float)
    assert waited.sum() / (run + waited).sum() > 0.1
    wall = run + waited
    assert np.mean(wall > 1.4 * np.median(wall, axis=0)) > 0.03
    anchor = [np.median(part) for part in np.array_split(wall[:, -1], 400)]
    assert max(anchor) / min(anchor) > 1.2
