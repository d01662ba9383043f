from dataclasses import replace

import numpy as np
import pytest

from hwsearch.chains import ChainIndex
from hwsearch.errors import InputError
from hwsearch.prediction.latency import LatencyPredictor
from hwsearch.prediction.log_ratio import LogRatioModel
from hwsearch.tables import BlockLatency, LatencyTable, SubnetLatency
from tests.chained import SPACE, blocks

ARCHS = SPACE.enumerate(10_000)
SEEN, UNSEEN = ARCHS[::20], ARCHS[7::9]


@pytest.fixture(scope="module")
def index():
    return ChainIndex(SPACE, blocks)


def table(index, seed=0, spread=0.3, missing=0):
    """Block latencies near the work, each off by its own factor."""
    factor = np.random.default_rng(seed).uniform(1 - spread, 1 + spread, len(index.specs))
    costs = (index.macs / 2e5 + 0.02) * factor
    blocks_ms = {
        spec: BlockLatency(latency_ms=ms)
        for spec, ms in zip(index.specs[missing:], costs[missing:].tolist(), strict=True)
    }
    return LatencyTable(
        supernet="toy",
        space=SPACE.digest,
        device=f"device{seed}",
        slug=f"device{seed}",
        fingerprint={},
        created="2026-01-31",
        baseline_ms=1.0,
        overhead_ms=0.05,
        blocks=blocks_ms,
    )


def sums(known, archs):
    return np.array([known.latency_ms([b.spec for b in blocks(arch)]) for arch in archs])


def interacting(known, archs, scale=1.2):
    """Blocks that slow each other down where there are more of them or they are wider."""
    crowd = [0.04 * (arch["depth"] - 2) + 0.02 * (arch["act"] == "swish") for arch in archs]
    return scale * sums(known, archs) * np.exp(crowd)


def noisy(values, seed, noise=0.005):
    return values * np.exp(np.random.default_rng(seed).normal(0, noise, len(values)))


def off(predicted, truth):
    return float(np.abs(predicted / truth - 1).mean())


def test_a_table_alone_is_its_sum(index):
    predictor = LatencyPredictor(SPACE, index, table(index))
    mean, deviation = predictor.predict(ARCHS)
    assert np.allclose(mean, sums(table(index), ARCHS), rtol=1e-12)
    assert np.allclose(deviation, 0.1 * mean)


def test_measured_subnets_correct_a_table(index):
    known = table(index)
    truth = interacting(known, UNSEEN)
    predictor = LatencyPredictor(SPACE, index, known)
    alone = off(predictor.predict_mean(UNSEEN), truth)
    predictor.fit(SEEN, noisy(interacting(known, SEEN), 1))
    corrected = off(predictor.predict_mean(UNSEEN), truth)
    assert alone > 0.1
    assert corrected < 0.015


def test_few_measured_subnets_already_scale_a_table(index):
    known = table(index)
    predictor = LatencyPredictor(SPACE, blocks, known)
    predictor.fit(ARCHS[::400], interacting(known, ARCHS[::400]))
    assert off(predictor.predict_mean(UNSEEN), interacting(known, UNSEEN)) < 0.05


def test_a_table_helps(index):
    known = table(index)
    few, measured = SEEN[:25], noisy(interacting(known, SEEN[:25]), 2)
    with_table = LatencyPredictor(SPACE, index, known).fit(few, measured)
    without = LatencyPredictor(SPACE, index).fit(few, measured)
    truth = interacting(known, UNSEEN)
    error, error_without = (off(p.predict_mean(UNSEEN), truth) for p in (with_table, without))
    assert error < 0.5 * error_without


def test_learns_from_whole_subnets_alone(index):
    truth = interacting(table(index), UNSEEN)
    measured = noisy(interacting(table(index), SEEN), 3)
    for known, allowed in ((index, 0.1), (None, 0.15)):
        predictor = LatencyPredictor(SPACE, known).fit(SEEN, measured)
        assert off(predictor.predict_mean(UNSEEN), truth) < allowed


def test_ten_subnets_and_tables_of_others_make_a_new_device(index):
    others = [table(index, seed=1), table(index, seed=2)]
    mixture = 0.7 * sums(others[0], ARCHS) + 0.6 * sums(others[1], ARCHS)
    chosen = np.linspace(0, len(ARCHS) - 1, 10).astype(int)
    predictor = LatencyPredictor(SPACE, index, others)
    predictor.fit(ARCHS[chosen], noisy(mixture[chosen], 4))
    assert off(predictor.predict_mean(ARCHS), mixture) < 0.02
    low, high = predictor.interval(ARCHS)
    assert ((low <= mixture) & (mixture <= high)).mean() > 0.9


def test_a_useless_table_gets_no_negative_weight(index):
    good, bad = table(index, seed=1, spread=0.05), table(index, seed=2, spread=0.9)
    predictor = LatencyPredictor(SPACE, index, [good, bad]).fit(SEEN, sums(good, SEEN))
    assert off(predictor.predict_mean(UNSEEN), sums(good, UNSEEN)) < 0.01


def test_intervals_hold_as_often_as_they_say(index):
    known = table(index)
    measured = noisy(interacting(known, SEEN), 5, noise=0.02)
    predictor = LatencyPredictor(SPACE, index, known).fit(SEEN, measured)
    again = noisy(interacting(known, UNSEEN), 6, noise=0.02)
    low, high = predictor.interval(UNSEEN)
    assert 0.9 <= ((low <= again) & (again <= high)).mean() <= 0.99


@pytest.mark.parametrize("n", [10, 30, 50])
@pytest.mark.parametrize(
    ("between_jobs", "noise", "misfit"),
    [(0.0, 0.005, 0.01), (0.01, 0.005, 0.01), (0.02, 0.005, 0.005), (0.003, 0.003, 0.015)],
)
def test_intervals_hold_in_other_jobs(n, between_jobs, noise, misfit, index):
    """Jobs that differ by a factor each, and subnets that differ by what nothing explains."""
    own = np.random.default_rng(5).normal(0, misfit, len(ARCHS))
    known, held = table(index), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(ARCHS), n + 80, replace=False)
        factors = rng.normal(0, between_jobs, len(chosen))
        job = np.concatenate([np.arange(n) // 8, n + np.arange(80) // 8])
        truth = interacting(known, ARCHS[chosen]) * np.exp(own[chosen] + factors[job])
        measured = truth * np.exp(rng.normal(0, noise, len(chosen)))
        predictor = LatencyPredictor(SPACE, index, known).fit(ARCHS[chosen[:n]], measured[:n])
        low, high = predictor.interval(ARCHS[chosen[n:]])
        held.append(((low <= measured[n:]) & (measured[n:] <= high)).mean())
    assert 0.88 <= np.mean(held) <= 0.99


def test_errors_of_subnets_that_the_table_was_made_from_count_for_more(index):
    """Block latencies are means over the cover subnets, of which each has a factor of its own."""
    rng = np.random.default_rng(8)
    few = ARCHS[rng.choice(len(ARCHS), 32, replace=False)]
    measured = sums(table(index), few) * np.exp(rng.normal(0, 0.02, len(few)))
    held = (index.counts(few) > 0).sum(axis=0).tolist()
    known = replace(
        table(index),
        blocks={
            spec: replace(cost, count=max(n, 1))
            for (spec, cost), n in zip(table(index).blocks.items(), held, strict=True)
        },
    )
    numbers = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")

    def width(purpose):
        subnets = [
            SubnetLatency(architecture=a.mapping, purpose=purpose, **dict.fromkeys(numbers, 1.0))
            for a in few
        ]
        used = replace(known, subnets=tuple(subnets))
        predictor = LatencyPredictor(SPACE, index, used).fit(few, measured)
        low, high = predictor.interval(UNSEEN)
        return np.log(high / low).mean()

    # A quarter of the subnets is left out with each job.
    assert 1.2 < width("cover") / width("validate") < 2.0


def test_is_surer_with_more_subnets(index):
    known = table(index)
    measured = noisy(interacting(known, SEEN), 7)
    deviations = [
        LatencyPredictor(SPACE, index, known).fit(SEEN[:n], measured[:n]).predict(UNSEEN)[1].mean()
        for n in (4, 40)
    ]
    assert deviations[1] < 0.6 * deviations[0]


def test_the_compiled_mean_is_that_of_the_model(index):
    known = table(index)
    predictor = LatencyPredictor(SPACE, index, known).fit(SEEN, interacting(known, SEEN))
    model = LogRatioModel(SPACE).fit(SEEN, interacting(known, SEEN), predictor._base(SEEN))
    mean, deviation = model.predict(UNSEEN, predictor._base(UNSEEN))
    assert np.allclose(predictor.predict_mean(UNSEEN), mean, rtol=1e-9)
    assert (predictor.predict(UNSEEN)[1] > deviation).all()


def test_an_unfitted_predictor_says_so(index):
    two = [table(index, seed=1), table(index, seed=2)]
    for predictor in (LatencyPredictor(SPACE, index), LatencyPredictor(SPACE, index, two)):
        with pytest.raises(InputError, match="call fit with measured subnets first"):
            predictor.predict(UNSEEN)


def test_a_table_that_lacks_specs_is_refused(index):
    with pytest.raises(InputError, match=r"lacks 3 block specs.*hwsearch profile toy"):
        LatencyPredictor(SPACE, index, table(index, missing=3))


def test_a_table_without_blocks_to_look_up_is_refused(index):
    with pytest.raises(InputError, match="give the blocks of the supernet"):
        LatencyPredictor(SPACE, None, table(index))


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_latencies_that_are_none_are_refused(wrong, index):
    measured = np.append(np.ones(4), wrong)
    with pytest.raises(InputError, match=r"latency .* of architecture 4 is no positive number"):
        LatencyPredictor(SPACE, index).fit(SEEN[:5], measured)


def test_lengths_and_spaces_that_differ_are_refused(index):
    with pytest.raises(InputError, match="do not fit 5 architectures"):
        LatencyPredictor(SPACE, index).fit(SEEN[:5], np.ones(4))
    part = SPACE.restrict({"depth": [1]})
    with pytest.raises(InputError, match="another space"):
        LatencyPredictor(SPACE, index).fit(part.sample(5, 0), np.ones(5))
