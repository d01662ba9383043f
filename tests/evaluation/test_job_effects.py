"""Job effects, solved for on simulated jobs whose truth is known."""

import numpy as np
import pytest

from hwsearch.evaluation.job_effects import solve_job_effects

SHIFT, PROCESS, NOISE = 0.04, 0.003, 0.003
N_JOBS, NEW = 12, 6


DISTURBED = 7  # a job


def simulated(seed, bridges=2, shift=SHIFT, process=PROCESS, noise=NOISE, wrong=0.0):
    """Jobs of six new models and up to two earlier ones: true and measured logs, and their places.

    Truth is relative to the mean job, as solutions are. The last bridge of one job is ``wrong``.
    """
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.5, N_JOBS * NEW)
    order = np.argsort(truth[:NEW])
    effects = rng.normal(0, shift, N_JOBS)
    jobs, models = [], []
    for number in range(N_JOBS):
        old = order[[0, -1]][:bridges] if number else []
        there = [*range(number * NEW, (number + 1) * NEW), *old]
        jobs += [number] * len(there)
        models += there
    jobs, models = np.array(jobs), np.array(models)
    measured = truth[models] + effects[jobs]
    measured += rng.normal(0, process, len(jobs)) + rng.normal(0, noise, len(jobs))
    measured[np.flatnonzero(jobs == DISTURBED)[-1]] += wrong
    return truth + effects.mean(), effects - effects.mean(), jobs, models, measured


def solved(jobs, models, measured, noise=NOISE):
    return solve_job_effects(jobs, models, measured, np.full(len(jobs), noise**2))


def first(jobs, models, measured):
    """The raw log of every model, from the job in which it was new."""
    return measured[np.unique(models, return_index=True)[1]]


def test_corrected_values_are_several_times_closer_to_the_truth():
    raw, corrected = [], []
    for seed in range(20):
        truth, _, *entries = simulated(seed)
        raw.append(first(*entries) - truth)
        corrected.append(solved(*entries).logs - truth)
    off = np.sqrt(np.mean(np.square(raw)))
    assert off > 0.03
    assert np.sqrt(np.mean(np.square(corrected))) < off / 5


@pytest.mark.parametrize(
    "given",
    [{}, {"bridges": 1}, {"shift": 0.0}, {"noise": 0.015}, {"shift": 0.1, "process": 0.01}],
)
def test_intervals_hold_the_truth(given):
    held, jobs_held = [], []
    for seed in range(40):
        truth, effects, *entries = simulated(seed, **given)
        found = solved(*entries, noise=given.get("noise", NOISE))
        held.append(np.abs(found.logs - truth) <= 1.96 * found.log_errors)
        jobs_held.append(np.abs(found.effects - effects) <= 1.96 * found.effect_errors)
    assert np.mean(held) >= 0.90
    if given.get("bridges") != 1:  # from which nothing is learned of the noise between processes
        assert np.mean(held) <= 0.985
    assert np.mean(jobs_held) >= 0.90


def test_without_bridges_nothing_is_corrected():
    _, _, *entries = simulated(0, bridges=0)
    found = solved(*entries)
    np.testing.assert_allclose(found.logs, first(*entries), atol=1e-12)
    np.testing.assert_allclose(found.effects, 0.0, atol=1e-12)
    assert (found.log_errors > 0.02).all(), "another job may be off by some percent"


def test_one_job_is_not_corrected_and_has_its_own_errors():
    found = solve_job_effects([0, 0], [0, 1], [0.1, 0.7], [1e-4, 4e-4])
    np.testing.assert_allclose(found.logs, [0.1, 0.7])
    np.testing.assert_allclose(found.log_errors, [0.01, 0.02], rtol=0.35)
    assert found.effect_errors.tolist() == [0.0]


def test_a_poor_bridge_corrects_less_than_a_good_one():
    def effect(variance):
        """The second job's, where the one model that both have is 8% slower in it."""
        jobs, models, logs = [0, 0, 1, 1], [0, 1, 1, 2], [0.0, 0.5, 0.58, 1.0]
        return solve_job_effects(jobs, models, logs, [1e-6, 1e-6, variance, 1e-6]).effects[1]

    assert 0.03 < effect(1e-6) <= 0.04, "half of the difference, as the mean job is the measure"
    assert 0.0 < effect(0.1**2) < 0.5 * effect(1e-6)


def test_a_quiet_machine_is_left_alone():
    """Bridges of 1.5% noise do not add it to jobs that do not differ."""
    raw, corrected = [], []
    for seed in range(20):
        truth, _, *entries = simulated(seed, shift=0.0, process=0.001, noise=0.015)
        raw.append(first(*entries) - truth)
        corrected.append(solved(*entries, noise=0.015).logs - truth)
    worse = np.sqrt(np.mean(np.square(corrected)) / np.mean(np.square(raw)))
    assert worse < 1.1


def solved_with_a_wrong_bridge(bridges, wrong, **given):
    """Error of the disturbed job's effect, its standard error, held new logs, worst other log."""
    found = []
    for seed in range(40):
        truth, effects, *entries = simulated(seed, bridges=bridges, wrong=wrong, **given)
        solution = solved(*entries)
        off = solution.effects[DISTURBED] - effects[DISTURBED]
        new = slice(DISTURBED * NEW, (DISTURBED + 1) * NEW)
        logs = np.abs(solution.logs - truth)
        held = logs <= 1.96 * solution.log_errors
        others = np.delete(logs, np.r_[new])
        found.append((off, solution.effect_errors[DISTURBED], held[new].mean(), others.max()))
    return (np.array(each) for each in zip(*found, strict=True))


@pytest.mark.parametrize("wrong", [0.2, -0.2])
def test_of_two_bridges_a_wrong_one_does_not_shift_the_job(wrong):
    """It is off by 10% if both count alike."""
    off, errors, held, others = solved_with_a_wrong_bridge(2, wrong)
    assert np.mean(np.abs(off) < 0.015) >= 0.9
    assert held.mean() >= 0.9
    assert np.median(others) < 0.02, "no other job is shifted either"
    _, sound, *_ = solved_with_a_wrong_bridge(2, 0.0)
    assert np.median(errors) > 1.2 * np.median(sound), "one bridge tells less than two"


def test_bridges_that_disagree_are_believed_less_the_less_is_known_of_which_one_is_wrong():
    """Jobs that differ by 10% each: a shift of 20% is no less likely than a wrong bridge."""
    off, errors, held, _ = solved_with_a_wrong_bridge(2, 0.2, shift=0.1)
    assert np.mean(np.abs(off) <= 1.96 * errors) >= 0.9
    assert held.mean() >= 0.9


def test_a_single_bridge_that_is_wrong_is_doubted_as_jobs_differ_by_less():
    """Nothing else tells it from a slow job: where jobs differ by 4%, one by 20% is unlikely."""
    off, errors, *_ = solved_with_a_wrong_bridge(1, 0.2)
    assert np.median(np.abs(off)) < 0.1
    assert np.median(errors) > 0.03, "the job may be off by some percent, as without a bridge"
    assert np.mean(np.abs(off) <= 1.96 * errors) >= 0.65
    off, *_ = solved_with_a_wrong_bridge(1, 0.2, shift=0.02)
    assert np.mean(np.abs(off) < 0.06) >= 0.9
    off, *_ = solved_with_a_wrong_bridge(1, 0.2, shift=0.1)
    assert np.median(off) > 0.12, "where jobs differ by 10%, it is believed"


def test_bridges_that_agree_on_a_large_shift_are_believed():
    for seed in range(10):
        _, effects, jobs, models, measured = simulated(seed)
        measured[jobs == DISTURBED] += 0.15
        found = solved(jobs, models, measured).effects
        shift = found[DISTURBED] - np.delete(found, DISTURBED).mean()
        true = effects[DISTURBED] - np.delete(effects, DISTURBED).mean()
        assert shift == pytest.approx(true + 0.15, abs=0.02)


def test_a_model_of_two_measurements_one_of_which_is_wrong_is_not_known():
    """Nothing says which one it is, so that the interval holds both."""
    jobs, models = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 3]
    found = solve_job_effects(jobs, models, [0.0, 0.5, 1.0, 0.2, 0.5, 1.0], [1e-5] * 6)
    assert abs(found.effects[1] - found.effects[0]) < 0.05
    assert found.log_errors[0] > 2 * found.log_errors[1]
    assert 2 * found.log_errors[0] > 0.1


def test_unequal_variances_weigh_by_their_precision():
    jobs, models = [0, 1, 0, 1], [0, 0, 1, 1]
    found = solve_job_effects(jobs, models, [0.0, 0.1, 0.0, 0.02], [1e-6, 1e-6, 1.0, 1.0])
    assert found.effects[1] - found.effects[0] == pytest.approx(0.1, abs=0.02)


def test_the_order_of_measurements_does_not_matter():
    _, _, jobs, models, measured = simulated(3)
    order = np.random.default_rng(0).permutation(len(jobs))
    there, back = (
        solved(jobs, models, measured),
        solved(jobs[order], models[order], measured[order]),
    )
    np.testing.assert_allclose(there.logs, back.logs, atol=1e-12)
    np.testing.assert_allclose(there.log_errors, back.log_errors, atol=1e-12)
