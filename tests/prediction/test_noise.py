import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.prediction import GaussianProcess, Predictor, TransformedGaussianProcess
from hwsearch.prediction.linear import LinearModel
from hwsearch.prediction.log_ratio import LogRatioModel
from hwsearch.prediction.pairwise import PairwiseModel
from tests.optimizer.problems import Tabular, elastic_space

SPACE = elastic_space(2)
SURROGATES = [
    GaussianProcess,
    TransformedGaussianProcess,
    LinearModel,
    PairwiseModel,
]
GAINS = np.array([3.0, 1.0, 2.0, 0.5, 0.0, 1.0])


def known_in_part(n=60):
    """Rows of which two thirds have targets that are far off, and say so."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (n, 6)).astype(float)
    noise = np.where(np.arange(n) % 3, 3.0, 0.0)
    return x, x @ GAINS + rng.normal(0.0, 1.0, n) * noise, noise


@pytest.mark.parametrize("make", SURROGATES)
class TestKnownNoise:
    def test_precise_targets_count_for_more(self, make):
        x, y, noise = known_in_part()
        truth = x @ GAINS
        aware, unaware = make().fit(x, y, noise), make().fit(x, y)
        off = [np.abs(model.predict(x)[0] - truth).mean() for model in (aware, unaware)]
        assert off[0] < 0.5 * off[1]

    def test_none_is_as_good_as_zero(self, make):
        x, y, _ = known_in_part()
        plain, zero = make().fit(x, y).predict(x), make().fit(x, y, np.zeros(len(y))).predict(x)
        assert np.array_equal(plain, zero)

    def test_what_is_no_deviation_is_refused(self, make):
        x, y, noise = known_in_part()
        with pytest.raises(InputError, match=r"noise of shape \(3,\) does not fit 60 targets"):
            make().fit(x, y, noise[:3])
        for wrong in (-1.0, np.nan, np.inf):
            noise[2] = wrong
            with pytest.raises(InputError, match=rf"noise {wrong} of target 2 is no standard"):
                make().fit(x, y, noise)


@pytest.mark.parametrize("name", ["gaussian-process", "additive", "auto"])
def test_a_predictor_passes_it_on(name):
    archs = SPACE.sample_distinct(60, 0)
    truth, noise = Tabular(SPACE).values(archs)["quality"], np.where(np.arange(60) % 3, 5.0, 0.0)
    values = truth + np.random.default_rng(0).normal(size=60) * noise
    off = [
        np.abs(Predictor(SPACE, name).fit(archs, values, given).predict(archs)[0] - truth).mean()
        for given in (noise, None)
    ]
    assert off[0] < 0.6 * off[1]


def test_a_ratio_takes_it_relative_to_the_values():
    archs = SPACE.sample_distinct(60, 0)
    approximation = Tabular(SPACE).values(archs)["cost"]
    noise = np.where(np.arange(60) % 3, 0.3, 0.0)
    factors = 1.5 * np.exp(np.random.default_rng(0).normal(size=60) * noise)
    values = approximation * factors
    off = [
        np.abs(LogRatioModel(SPACE).fit(archs, values, approximation, given).predict(
            archs, approximation)[0] / approximation - 1.5).mean()
        for given in (noise * values, None)
    ]  # fmt: skip
    assert off[0] < 0.5 * off[1]
