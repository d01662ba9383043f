import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import kendalltau

from hwsearch.errors import InputError
from hwsearch.prediction import GaussianProcess, Predictor, TransformedGaussianProcess
from hwsearch.prediction.bayesian_regression import LogNormalPrior, negative_log_posterior
from hwsearch.prediction.gaussian_process import _distances, _kernel_of
from hwsearch.prediction.linear import LinearModel
from hwsearch.prediction.pairwise import PairwiseModel
from hwsearch.prediction.prior_covariance import PriorCovariance
from hwsearch.space import Choice, SearchSpace
from tests.optimizer.problems import Tabular, elastic_space, flat_space, operator_space

SURROGATES = [
    GaussianProcess,
    TransformedGaussianProcess,
    LinearModel,
    PairwiseModel,
]


def rows(n, n_features=6, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (n, n_features)).astype(float)


def accuracy(total):
    return 78.0 - 9.0 * np.exp(-total)


@pytest.mark.parametrize("make", SURROGATES)
class TestEverySurrogate:
    def test_recovers_an_additive_function(self, make):
        gains = np.array([3.0, -1.0, 2.0, 0.5, 0.0, 1.0])
        x = rows(40)
        mean, deviation = make().fit(x, x @ gains + 5.0).predict(rows(200, seed=1))
        truth = rows(200, seed=1) @ gains + 5.0
        assert np.abs(mean - truth).max() < 0.15
        assert deviation.max() < 0.3

    def test_is_less_sure_away_from_the_rows(self, make):
        x = np.zeros((10, 8))
        x[:, :3] = rows(10, 3)
        model = make().fit(x, x.sum(axis=1))
        _, deviation = model.predict(np.array([x[0], np.ones(8)]))
        assert deviation[1] > 2 * deviation[0]

    @pytest.mark.parametrize("value", [0.0, 76.3, -1e-9, 1e12])
    def test_predicts_a_constant(self, make, value):
        mean, deviation = make().fit(rows(5), np.full(5, value)).predict(rows(4, seed=1))
        assert mean == pytest.approx(np.full(4, value))
        assert np.isfinite(deviation).all()
        assert (deviation > 0).all()

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_takes_a_few_rows(self, make, n):
        mean, deviation = make().fit(rows(n), np.arange(n)).predict(rows(5, seed=1))
        assert np.isfinite(mean).all()
        assert np.isfinite(deviation).all()

    def test_averages_repeated_rows_that_disagree(self, make):
        x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 20, axis=0)
        y = np.tile([0.0, 1.0], 20) + 10 * x[:, 0]
        mean, _ = make().fit(x, y).predict(x[[0, -1]])
        assert mean == pytest.approx([0.5, 10.5], abs=0.3)

    def test_is_the_same_each_time_whatever_was_fitted_before(self, make):
        x, y = rows(20), rows(20) @ np.arange(6.0)
        fresh = make().fit(x, y).predict(x)
        again = make().fit(rows(9, seed=3), np.arange(9)).fit(x, y).predict(x)
        assert np.array_equal(fresh, again)

    def test_does_not_depend_on_the_unit_or_the_direction(self, make):
        x = rows(25)
        y = accuracy(x @ np.linspace(0.1, 0.6, 6))
        mean, deviation = make().fit(x, y).predict(rows(30, seed=1))
        other, other_deviation = make().fit(x, -1000.0 * y).predict(rows(30, seed=1))
        assert other == pytest.approx(-1000.0 * mean, rel=1e-3)
        assert other_deviation == pytest.approx(1000.0 * deviation, rel=0.05)

    def test_handles_an_outlier_of_many_orders(self, make):
        y = np.append(np.arange(19.0), 1e9)
        mean, deviation = make().fit(rows(20), y).predict(rows(20))
        assert np.isfinite(mean).all()
        assert np.isfinite(deviation).all()

    def test_refuses_what_it_cannot_learn_from(self, make):
        with pytest.raises(InputError, match="at least one row"):
            make().fit(np.empty((0, 3)), [])
        with pytest.raises(InputError, match=r"targets hold nan at \[1\]"):
            make().fit(rows(2), [1.0, np.nan])
        with pytest.raises(InputError, match="do not match"):
            make().fit(rows(2), [1.0])
        with pytest.raises(InputError, match="not been fitted"):
            make().predict(rows(2))
        with pytest.raises(InputError, match=r"\(n, 6\) is what"):
            make().fit(rows(5), np.arange(5)).predict(rows(5, 7))


def test_gradient_of_the_marginal_likelihood():
    x, y = rows(15), np.random.default_rng(1).normal(size=15)
    known = np.linspace(0.0, 0.2, 15)
    grams = np.array([x @ x.T, x[:, :3].sum(axis=1)[:, None] * x[:, :3].sum(axis=1)])
    prior = LogNormalPrior(logs=np.zeros(5), deviations=np.ones(5), bounds=[])
    fixed = (_kernel_of(grams, _distances(x, x), known), y, prior)
    for logs in np.random.default_rng(2).normal(-1.0, 0.7, (5, 5)):
        gradient = np.linalg.norm(negative_log_posterior(logs, *fixed)[1])
        value, slope = (lambda z, at=at: negative_log_posterior(z, *fixed)[at] for at in (0, 1))
        error = check_grad(value, slope, logs)
        assert error < 1e-5 * max(gradient, 1.0)


def test_size_term_extrapolates_from_a_handful_of_rows():
    steps = np.tril(np.ones((8, 8)))[[0, 2, 5, 7]]
    shared = [PriorCovariance(np.ones((8, 8)), 0.0, 1.5), PriorCovariance(np.eye(8), -2.0, 1.0)]
    mean, _ = GaussianProcess(shared).fit(steps, steps.sum(axis=1)).predict(rows(50, 8))
    assert kendalltau(mean, rows(50, 8).sum(axis=1))[0] > 0.8


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_saturating_targets_are_learnt_on_their_own_scale(sign):
    gains = np.linspace(0.1, 0.6, 12)
    x, test = rows(40, 12), rows(300, 12, seed=1)
    plain, _ = GaussianProcess().fit(x, sign * accuracy(x @ gains)).predict(test)
    scaled, _ = TransformedGaussianProcess().fit(x, sign * accuracy(x @ gains)).predict(test)
    truth = sign * accuracy(test @ gains)
    assert np.abs(scaled - truth).mean() < 0.7 * np.abs(plain - truth).mean()


def test_deviation_says_how_far_off_a_prediction_is():
    space = elastic_space(3)
    table = Tabular(space)
    known, asked = space.sample_distinct(40, 0), space.sample_distinct(400, 1)
    mean, deviation = Predictor(space).fit(known, table.values(known)["quality"]).predict(asked)
    errors = np.abs(mean - table.values(asked)["quality"]) / deviation
    assert 0.3 < np.sqrt((errors**2).mean()) < 2.0


class TestPredictor:
    def test_ranks_architectures_it_has_not_seen(self):
        space = elastic_space(3)
        table = Tabular(space)
        known, asked = space.sample_distinct(60, 0), space.sample_distinct(300, 1)
        for name in ("quality", "cost"):
            predictor = Predictor(space).fit(known, table.values(known)[name])
            assert kendalltau(predictor.predict(asked)[0], table.values(asked)[name])[0] > 0.85

    def test_ranks_where_no_choice_is_ordered(self):
        space = operator_space(6)
        table = Tabular(space)
        known, asked = space.sample_distinct(60, 0), space.sample_distinct(300, 1)
        predictor = Predictor(space).fit(known, table.values(known)["quality"])
        tau = kendalltau(predictor.predict(asked)[0], table.values(asked)["quality"])[0]
        assert tau > 0.75

    def test_takes_a_space_without_a_choice_to_make(self):
        space = SearchSpace([Choice("only", (1,))])
        archs = space.enumerate(1)
        assert Predictor(space).fit(archs, [3.0]).predict(archs)[0] == pytest.approx([3.0])

    def test_refuses_architectures_of_another_space(self):
        space, other = elastic_space(1), flat_space(3)
        predictor = Predictor(space).fit(space.smallest(), [1.0])
        with pytest.raises(InputError, match="another space"):
            predictor.predict(other.smallest())
        with pytest.raises(InputError, match="another space"):
            predictor.fit(other.smallest(), [1.0])
        with pytest.raises(InputError, match="one number for each"):
            predictor.fit(space.smallest(), [1.0, 2.0])
