"""Prediction with a covariate."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwsearch.errors import InputError
from hwsearch.optimizer.covariates import CovariatePredictor
from hwsearch.prediction import Predictor
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace([Choice(f"layer{n}", (1, 2, 3, 4, 5)) for n in range(40)])


def loss(seed):
    """Losses that differ from choice to choice by two orders of magnitude."""
    sizes = np.exp(np.random.default_rng(seed).normal(0.0, 2.0, 40))

    def of(archs):
        return ((4 - archs.indices) ** 2 @ sizes) + 1e-3

    return of


def tau(model, truth, archs):
    return kendalltau(model.predict_mean(archs), truth(archs))[0]


@pytest.mark.parametrize("sign", [1.0, -3.0])
def test_a_covariate_predicts_from_few_values(sign):
    known, others = SPACE.sample(8, 0), SPACE.sample(200, 1)

    def truth(archs):
        return sign * loss(0)(archs) ** 0.7

    told = CovariatePredictor(loss(0), known, truth(known))
    assert tau(told, truth, others) > 0.9
    assert tau(Predictor(SPACE).fit(known, truth(known)), truth, others) < 0.5
    mean, deviation = told.predict(others)
    np.testing.assert_allclose(mean, told.predict_mean(others))
    assert (np.abs(mean - truth(others)) <= 1.96 * deviation).mean() > 0.8


def test_measured_values_overrule_a_wrong_covariate():
    known, others = SPACE.sample(150, 0), SPACE.sample(200, 1)
    misled = CovariatePredictor(loss(1), known, loss(2)(known))
    untold = Predictor(SPACE).fit(known, loss(2)(known))
    assert tau(misled, loss(2), others) > tau(untold, loss(2), others) - 0.05


def test_a_covariate_that_is_the_same_everywhere_says_nothing():
    known, others = SPACE.sample(30, 0), SPACE.sample(50, 1)
    model = CovariatePredictor(lambda archs: np.ones(len(archs)), known, loss(0)(known))
    assert np.isfinite(model.predict(others)).all()


def test_a_covariate_is_positive():
    with pytest.raises(InputError, match="covariate 0"):
        CovariatePredictor(lambda a: np.zeros(len(a)), SPACE.sample(4, 0), np.arange(4.0))
