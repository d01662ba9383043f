import numpy as np
import pytest
from scipy.stats import t

from hwsearch.prediction.calibration import Calibration, calibrated, job_numbers

JOBS = np.arange(40) // 8


def errors(of_jobs, of_each, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, of_jobs, 5)[JOBS] + rng.normal(0, of_each, 40)


def test_quantiles_are_those_of_student():
    assert Calibration(1.0, 6.0).quantile_95() == pytest.approx(t.ppf(0.975, 6))


def test_deviations_grow_with_the_errors_and_never_shrink():
    assert calibrated(errors(0, 2), JOBS).factor == pytest.approx(2, rel=0.3)
    assert calibrated(errors(0, 0.1), JOBS).factor == 1.0


def test_errors_that_jobs_share_count_as_one_each():
    assert calibrated(errors(3, 1e-6), JOBS).degrees == pytest.approx(5, rel=0.01)
    assert calibrated(errors(0, 1), JOBS).degrees > 20
    some = [calibrated(errors(1, 1, seed), JOBS).degrees for seed in range(20)]
    assert 7 < np.mean(some) < 25


def test_single_errors_and_equal_ones_do_no_harm():
    for given, jobs in (([2.0], [0]), ([1.0, -1.0], [0, 1]), ([0.0] * 8, [0] * 4 + [1] * 4)):
        found = calibrated(np.array(given), np.array(jobs))
        assert np.isfinite(found).all()
        assert found.factor >= 1.0
        assert 1 <= found.degrees <= len(given)


@pytest.mark.parametrize(("n", "jobs"), [(0, 0), (3, 1), (4, 4), (10, 4), (50, 6), (500, 10)])
def test_jobs_are_values_that_follow_each_other(n, jobs):
    numbers = job_numbers(n)
    assert numbers.shape == (n,)
    assert len(np.unique(numbers)) == jobs
    assert (np.diff(numbers) >= 0).all()
    if jobs > 1:
        sizes = np.bincount(numbers)
        assert sizes.max() - sizes.min() <= 1
