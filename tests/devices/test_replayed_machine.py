"""The protocol on recorded noise of a real machine, without a clock."""

from functools import cache

import numpy as np
import pytest

from hwsearch.devices.base import MeasureSettings
from hwsearch.devices.latency_statistics import TimedModel, estimate, estimate_latencies
from hwsearch.devices.protocol import sample_rounds
from tests.devices import replayed_machine
from tests.devices.replayed_machine import CHOSEN, JUDGED, ReplayedMachine

GOAL = MeasureSettings(half_width=0.007, seconds_per_model=6.0)
DEVICE = {"device": "d", "fingerprint": "f", "baseline_path": "kept/here.json"}


@cache
def differences(trace, settings=GOAL, models=None):
    """Time every model under two names; return log differences and their half-widths."""
    machine = ReplayedMachine(trace, models)
    # As many jobs as the trace lasts for: none of its rounds serves twice.
    found, before = [], 0
    while machine._round - before <= (machine.n_rounds - before) * 0.5 or not found:
        rounds = sample_rounds(
            machine.run, machine.n_models, 2, sessions=machine.sessions,
            clock=machine.clock, rng=np.random.default_rng(len(found)), settings=settings,
        )  # fmt: skip
        got = estimate(rounds)
        a, b = np.arange(0, machine.n_models, 2), np.arange(1, machine.n_models, 2)
        widths = np.hypot(got.half_widths[a], got.half_widths[b])
        found += zip(got.logs[a] - got.logs[b], widths, strict=True)
        if machine._round >= machine.n_rounds:
            break
    return np.array(found)


@pytest.mark.parametrize("traces", [CHOSEN, JUDGED], ids=["chosen", "judged"])
def test_two_names_of_one_model_agree_and_intervals_say_how_well(traces):
    off, widths = np.concatenate([differences(trace) for trace in traces]).T
    assert np.mean(np.abs(off) <= 0.01) >= 0.9
    assert 0.9 <= np.mean(np.abs(off) <= widths) <= 0.98


def test_on_an_idle_machine_all_agree():
    off, _ = np.concatenate([differences(CHOSEN[0]), differences(JUDGED[0])]).T
    assert np.all(np.abs(off) <= 0.01)


@pytest.mark.parametrize("trace", JUDGED)
def test_models_far_apart_are_ranked_right(trace):
    """Each is at least twice as slow as the one before, beside whatever other work."""
    machine = ReplayedMachine(trace)
    settings = MeasureSettings(seconds_per_model=2.0)
    rng = np.random.default_rng(0)
    rounds = sample_rounds(
        machine.run,
        machine.n_models,
        2,
        sessions=machine.sessions,
        clock=machine.clock,
        rng=rng,
        settings=settings,
    )
    models = [
        TimedModel(inputs="x", wall_s=times_s.ravel(), waited=None)
        for times_s in rounds.times_s[: rounds.n_models]
    ]
    baseline_s = np.full(40, 8e-4)
    found = estimate_latencies(
        rounds, models, baseline_s=baseline_s, settings=settings, cost_s=1.0, **DEVICE
    )
    assert np.all(np.diff([got.ratio for got in found[::2]]) > 0)
    assert all(a.ratio_high < b.ratio_low for a, b in zip(found[:-2:2], found[2::2], strict=True))


def test_a_trace_of_another_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(replayed_machine, "DATA", tmp_path)
    np.savez(tmp_path / "old.npz", run_us=np.ones((2, 3)), began_us=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"old\.npz has schema 1, not 2; record it again"):
        ReplayedMachine("old.npz")
