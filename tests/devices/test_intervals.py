"""Quantiles of our own, beside scipy's: the machines that a kit measures on have no scipy."""

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit
from scipy.stats import t

from hwsearch.devices.latency_statistics import student_quantile


@pytest.mark.parametrize("freedom", [1.0, 1.5, 2.0, 7.25, 30.0, 512.5])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.95, 0.975, 0.995])
def test_quantiles_are_those_of_scipy(probability, freedom):
    expected = stdtrit(freedom, probability)
    # Before SciPy 1.12 that is right to 9 digits: a step of Newton's gives the others.
    expected -= (stdtr(freedom, expected) - probability) / t.pdf(expected, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-11, abs=1e-13)


def test_quantiles_rise_with_probability_and_fall_with_freedom():
    by_freedom = [student_quantile(0.975, freedom) for freedom in np.linspace(1, 200, 60)]
    assert np.all(np.diff(by_freedom) < 0)
    by_probability = [student_quantile(p, 3.5) for p in np.linspace(0.5, 0.999, 60)]
    assert np.all(np.diff(by_probability) > 0)
