"""What values could have been: checked against known truths, thousands of times over."""

from dataclasses import replace

import numpy as np
import pytest

from hwsearch.constraints import Constraint
from hwsearch.devices import Latency
from hwsearch.evaluation.measurements import latency_measurement, ratio_measurement
from hwsearch.objectives import Objective
from hwsearch.run.front_probability import (
    front_membership,
    interval_draws,
    latency_draws,
    score_draws,
)
from hwsearch.trials import Measurement

TOP1, LATENCY = Objective("top1", "max", unit="%"), Objective("latency", "min", unit="ms")
MACS = Objective("macs", "min", exact=lambda archs: np.zeros(len(archs)))
BOTH = (TOP1, LATENCY)


def scored(key, outcomes):
    outcomes = np.asarray(outcomes)
    return Measurement(
        key=key,
        quantity="top1",
        context="c",
        purpose="search",
        value=100 * float(outcomes.mean()),
        count=len(outcomes),
        cost_s=0.0,
        samples=outcomes,
    )


def timed(ratios, counted=None, anchor_ms=1.0, baseline_width=0.0):
    """A latency whose anchor takes 2 ms."""
    ratios = np.asarray(ratios, np.float64)
    used = ratios if counted is None else ratios[counted]
    middle, half = float(np.median(used)), 0.01 * float(np.median(used))
    return Latency(
        device="scripted",
        fingerprint="f",
        inputs="",
        latency_ms=2 * middle,
        low_ms=2 * (middle - half),
        high_ms=2 * (middle + half),
        ratio=middle,
        ratio_low=middle - half,
        ratio_high=middle + half,
        p90_ms=1.0,
        p99_ms=1.0,
        rounds=len(ratios),
        runs=len(ratios),
        cv=0.0,
        waited=None,
        anchor_ms=anchor_ms,
        baseline_ms=2.0,
        baseline_low_ms=2.0 * (1 - baseline_width),
        baseline_high_ms=2.0 * (1 + baseline_width),
        warnings=(),
        ratios=ratios,
        counted=counted,
        times_ms=ratios[:, None],
        cost_s=0.0,
    )


def drawn(latencies, seed=0, with_ratios=True):
    """Draws of latencies by name, as a run would draw them."""
    measured = [latency_measurement(k, v, "c", "confirm") for k, v in latencies.items()]
    kept = {k: ratio_measurement(k, v, "c") for k, v in latencies.items() if with_ratios}
    return latency_draws(measured, kept, seed)


def noisy(rng, ratios, noise, n_rounds=64):
    """(n_rounds, n) ratios with a noise of their own, and one that they share by the anchor."""
    own = rng.normal(0.0, noise, (n_rounds, len(ratios)))
    shared = rng.normal(0.0, 3 * noise, (n_rounds, 1))
    return np.asarray(ratios) * np.exp(own + shared)


class TestScoreDraws:
    def test_have_the_mean_and_the_spread_of_a_score(self):
        outcomes = np.random.default_rng(0).random(2500) < 0.8
        (draws,) = score_draws([scored("a", outcomes)], 0).T
        rate = outcomes.mean()
        assert draws.shape == (2000,)
        assert draws.mean() == pytest.approx(100 * rate, abs=0.1)
        assert draws.std() == pytest.approx(100 * np.sqrt(rate * (1 - rate) / 2500), rel=0.05)

    def test_pair_images(self):
        """One is right wherever the other is, and on three more images: never worse."""
        rng = np.random.default_rng(1)
        a = rng.random(1000) < 0.7
        b = a.copy()
        b[np.flatnonzero(~a)[:3]] = True
        draws = score_draws([scored("a", a), scored("b", b)], 0)
        difference = draws[:, 1] - draws[:, 0]
        assert difference.min() >= 0.0
        assert difference.std() == pytest.approx(100 * np.sqrt(3) / 1000, rel=0.1)
        assert draws.std(axis=0).min() > 5 * difference.std()

    def test_are_those_of_resampled_images(self):
        """Drawing kinds of images gives what drawing every image would."""
        rng = np.random.default_rng(2)
        outcomes = np.stack([rng.random(60) < 0.5 for _ in range(2)])
        draws = score_draws([scored("ab"[i], row) for i, row in enumerate(outcomes)], 0)
        images = rng.integers(0, 60, (20000, 60))
        direct = 100 * outcomes[:, images].mean(axis=2)
        np.testing.assert_allclose(np.cov(draws.T), np.cov(direct), rtol=0.15, atol=2.0)

    def test_take_outcomes_that_are_no_hits_and_misses(self):
        outcomes = np.random.default_rng(3).normal(5.0, 2.0, 400)
        (draws,) = score_draws([scored("a", outcomes)], 0).T
        assert draws.std() == pytest.approx(100 * outcomes.std() / 20, rel=0.05)

    def test_a_score_of_nothing_stays_nothing(self):
        assert not score_draws([scored("a", np.zeros(50, bool))], 0).any()

    def test_the_seed_decides(self):
        scores = [scored("a", np.arange(100) < 70)]
        first, again, other = (score_draws(scores, seed) for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


class TestLatencyDraws:
    def test_pair_rounds_of_one_job(self):
        """The anchor's noise is in both ratios and moves them together."""
        rounds = noisy(np.random.default_rng(0), [1.0, 1.002], 0.01)
        rounds[:, 1] = rounds[:, 0] * 1.002
        draws = drawn({"a": timed(rounds[:, 0]), "b": timed(rounds[:, 1])})
        assert (draws[:, 1] > draws[:, 0]).all()
        assert draws.std(axis=0).min() > 0.002

    def test_do_not_pair_rounds_of_two_jobs(self):
        rounds = noisy(np.random.default_rng(0), [1.0, 1.002], 0.01)
        latencies = {
            "a": timed(rounds[:, 0]),
            "b": timed(rounds[:, 0] * 1.002, anchor_ms=1.0001),
        }
        draws = drawn(latencies)
        assert 0.3 < (draws[:, 1] > draws[:, 0]).mean() < 0.8

    def test_leave_out_rounds_that_do_not_count(self):
        rng = np.random.default_rng(1)
        ratios, counted = 1.0 + 0.001 * rng.standard_normal(40), np.arange(40) % 2 == 0
        ratios[~counted] *= 1.4
        draws = drawn({"a": timed(ratios, counted)})
        assert 1.9 < draws.min() < draws.max() < 2.1

    def test_a_round_that_counts_for_nobody_drawn_moves_nothing(self):
        """Five of sixty rounds count: some draws hold none of them."""
        counted = np.zeros(60, bool)
        counted[[3, 4, 5, 6, 7]] = True
        ratios = np.where(counted, [1.0, 1.1] * 30, 50.0)
        draws = drawn({"a": timed(ratios, counted)})
        assert np.isfinite(draws).all()
        assert draws.max() < 5.0

    def test_the_baseline_moves_all_alike(self):
        rounds = np.full((16, 2), [1.0, 1.5])
        draws = drawn({"ab"[i]: timed(rounds[:, i], baseline_width=0.02) for i in range(2)})
        np.testing.assert_allclose(draws[:, 1] / draws[:, 0], 1.5)
        assert draws[:, 0].std() == pytest.approx(2 * 0.02 / 1.96, rel=0.1)

    def test_of_a_store_without_ratios_come_from_intervals(self):
        draws = drawn({"a": timed(np.full(16, 1.0)), "b": timed(np.full(16, 1.001))}, 0, False)
        assert draws[:, 0].std() == pytest.approx(2 * 0.01 / 1.96, rel=0.1)
        assert 0.4 < (draws[:, 1] > draws[:, 0]).mean() < 0.7


def test_draws_of_an_interval_are_inside_it_19_times_of_20():
    draws = interval_draws(2.0, 1.8, 2.2, 0)
    assert ((draws > 1.8) & (draws < 2.2)).mean() == pytest.approx(0.95, abs=0.02)


class TestMembership:
    def test_of_what_nothing_comes_near_is_certain(self):
        draws = {"top1": np.array([[80.0, 70.0, 60.0]]), "latency": np.array([[2.0, 1.0, 1.5]])}
        assert front_membership(draws, BOTH, []).tolist() == [1.0, 1.0, 0.0]

    def test_equals_share_what_they_have(self):
        """With the same outcomes, and times as noisy: each is dominated in half of the draws."""
        outcomes = np.random.default_rng(0).random(500) < 0.7
        rounds = np.random.default_rng(1).normal(1.0, 0.01, 200)
        latencies = {"a": timed(rounds), "b": timed(rounds, anchor_ms=1.0001)}
        draws = {
            "top1": score_draws([scored("a", outcomes), scored("b", outcomes)], 0),
            "latency": drawn(latencies),
        }
        rates = front_membership(draws, BOTH, [])
        assert rates.sum() == pytest.approx(1.0, abs=0.03)  # both, where the medians are the same
        assert rates[0] == pytest.approx(0.5, abs=0.05)

    def test_duplicates_are_both_there(self):
        outcomes, rounds = np.arange(500) < 350, np.full(16, 1.0)
        draws = {
            "top1": score_draws([scored("a", outcomes), scored("b", outcomes)], 0),
            "latency": drawn({"a": timed(rounds), "b": timed(rounds)}),
        }
        assert front_membership(draws, BOTH, []).tolist() == [1.0, 1.0]

    def test_what_breaks_a_bound_is_out_and_pushes_nobody_out(self):
        draws = {
            "top1": np.array([[80.0, 70.0]] * 2),
            "latency": np.array([[0.9, 1.0], [1.1, 1.0]]),
        }
        bound = [Constraint.parse("latency <= 1")]
        assert front_membership(draws, BOTH, bound).tolist() == [0.5, 0.5]

    def test_what_breaks_a_bound_dominates_nobody(self):
        draws = {"top1": np.array([[90.0, 80.0]]), "latency": np.array([[1.0, 2.0]])}
        bound = [Constraint.parse("top1 <= 85")]
        assert front_membership(draws, BOTH, bound).tolist() == [0.0, 1.0]

    def test_exact_objectives_do_not_vary(self):
        draws = {"top1": np.array([[80.0, 70.0], [70.0, 80.0]]), "macs": np.array([[2e6, 1e6]])}
        assert front_membership(draws, (TOP1, MACS), []).tolist() == [0.5, 1.0]

    def test_is_what_the_front_of_every_draw_says(self):
        from hwsearch.objectives import is_non_dominated

        rng = np.random.default_rng(5)
        top1, latency = rng.integers(0, 6, (40, 8)) * 1.0, rng.integers(0, 6, (40, 8)) * 1.0
        counted = [
            is_non_dominated(np.column_stack([-a, b])) for a, b in zip(top1, latency, strict=True)
        ]
        rates = front_membership({"top1": top1, "latency": latency}, BOTH, [])
        assert rates.tolist() == np.mean(counted, axis=0).tolist()


def repeated(rng, true_top1, true_ratio, n_images=800):
    """Measure contenders whose truths are known; the front as measured, and its probabilities."""
    n = len(true_top1)
    hard = rng.standard_normal((n_images, 1))
    limit = np.quantile(rng.standard_normal(20000) * 1.1, true_top1 / 100)
    outcomes = (hard + 0.46 * rng.standard_normal((n_images, n))) <= limit
    rounds = noisy(rng, true_ratio, 0.01, n_rounds=24)
    draws = {
        "top1": score_draws([scored(str(i), outcomes[:, i]) for i in range(n)], 0),
        "latency": drawn({str(i): timed(rounds[:, i]) for i in range(n)}),
    }
    rates = front_membership(draws, BOTH, [])
    top1, ratio = outcomes.mean(axis=0), np.median(rounds, axis=0)
    everything = np.ones((1, 1))
    measured = front_membership(
        {"top1": top1 * everything, "latency": ratio * everything}, BOTH, []
    )
    truly = front_membership({"top1": true_top1[None], "latency": true_ratio[None]}, BOTH, [])
    return rates, measured > 0, truly > 0


def test_probabilities_are_kept():
    """Members that are given 0.7 belong to the true front at least about 7 times of 10.

    Here truths scatter about twice as far as measurements err. Members were selected by the very
    values that are resampled; their probabilities are no further off for that. Where truths lie
    closer to a smooth curve than one can measure, members belong more often than they are given:
    the draws err once more on top of the measurement's own error.
    """
    rng = np.random.default_rng(7)
    found = []
    for _ in range(60):
        ratio = np.sort(rng.uniform(1.0, 1.3, 10))
        found.append(repeated(rng, 70 + 20 * (ratio - 1.0) + rng.normal(0.0, 4.0, 10), ratio))
    rates, members, truths = map(np.concatenate, zip(*found, strict=True))
    assert truths[members].mean() == pytest.approx(rates[members].mean(), abs=0.06)
    for chosen in (np.ones_like(members), members):
        for low, high in ((0.0, 0.1), (0.1, 0.9), (0.9, 1.01)):
            given = chosen & (rates >= low) & (rates < high)
            if given.any():
                assert -0.03 < truths[given].mean() - rates[given].mean() < 0.15, (low, high)
    assert truths[members & (rates > 0.98)].mean() > 0.97
    unsure = members & (rates < 0.9)
    assert unsure.sum() > 30
    assert truths[unsure].mean() < 0.9


def test_a_changed_interval_changes_no_paired_draw():
    """What is kept of the rounds decides; the interval is for people."""
    rounds = np.random.default_rng(0).normal(1.0, 0.01, 32)
    wide = replace(timed(rounds), ratio_low=0.5, ratio_high=2.0)
    np.testing.assert_array_equal(drawn({"a": timed(rounds)}), drawn({"a": wide}))
