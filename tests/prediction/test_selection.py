import numpy as np
import pytest
from scipy.stats import norm

from hwsearch.encoding import thermometer
from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.prediction.registry import NAMES, make_surrogate
from hwsearch.prediction.selection import FEW, score_predictions, select_surrogate
from tests.optimizer.problems import elastic_space, flat_space, operator_space

ELASTIC, OPERATORS = elastic_space(3), operator_space(8)


def additive(archs, noise=0.0, seed=0):
    """Non-negative gains of very different sizes, below a ceiling."""
    rows = thermometer(archs)
    gains = np.random.default_rng(1).exponential(1.0, rows.shape[1]) ** 2
    off = np.random.default_rng(seed).normal(0.0, noise, len(rows))
    return 78.0 - 9.0 * np.exp(-2.0 * rows @ gains / gains.sum()) + off


def interacting(archs):
    rows = thermometer(archs) - 0.5
    pairs = np.random.default_rng(2).normal(size=(rows.shape[1], rows.shape[1]))
    return np.einsum("ij,jk,ik->i", rows, pairs, rows)


def unordered(archs):
    rows = thermometer(archs)
    return rows @ np.random.default_rng(3).normal(size=rows.shape[1])


def selected(space, values, n, **kwargs):
    archs = space.sample_distinct(n, 0)
    return select_surrogate(thermometer(archs), values(archs), space, **kwargs)


def test_gains_of_one_sign_are_recognised():
    found = selected(
        ELASTIC, lambda archs: additive(archs, 0.05), 48, names=["linear", "additive"]
    )
    assert found.name == "additive"
    linear, monotone = found.scores
    assert monotone.log_likelihood > linear.log_likelihood
    assert monotone.rmse < linear.rmse


def test_interactions_are_recognised():
    found = selected(ELASTIC, interacting, 256, names=["additive", "linear", "pairwise"])
    assert found.name == "pairwise"
    assert found.scores[2].tau > found.scores[1].tau + 0.1


def test_options_without_order_need_no_steps():
    found = selected(OPERATORS, unordered, 64, names=FEW)
    assert [each.name for each in found.scores] == list(FEW)
    assert all(each.tau > 0.9 for each in found.scores)


def test_a_wrong_order_speaks_against_gains_of_one_sign():
    """Middle options are best: steps up give, then take."""

    def peaked(archs):
        return -np.square(archs.indices - 1.0).sum(axis=1)

    found = selected(ELASTIC, peaked, 64, names=["additive", "linear"])
    assert found.name == "linear"


@pytest.mark.parametrize("values", [np.arange(5.0), np.ones(40)])
def test_the_first_is_kept_where_nothing_can_be_told(values):
    archs = ELASTIC.sample_distinct(len(values), 0)
    found = select_surrogate(thermometer(archs), values, ELASTIC)
    assert found.name == "gaussian-process"
    assert found.scores == ()


def test_is_the_same_each_time():
    first, again = (selected(ELASTIC, additive, 40) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("n", "more"), [(59, []), (60, ["trees"]), (300, ["pairwise", "trees"])])
def test_more_surrogates_take_part_from_more_rows_on(n, more, monkeypatch):
    pytest.importorskip("xgboost")
    found = selected(ELASTIC, interacting, n)
    assert [each.name for each in found.scores] == [*FEW, *more]
    monkeypatch.setattr("hwsearch.prediction.selection.find_spec", lambda name: None)
    without = selected(ELASTIC, interacting, n)
    assert [each.name for each in without.scores] == [*FEW, *more[:-1]]


def test_trees_are_chosen_where_nothing_adds_up():
    """A parity of choices: every one alone says nothing."""
    pytest.importorskip("xgboost")
    space = flat_space(3, 6)

    def parity(archs):
        return (archs.indices // 3).sum(axis=1) % 2 + 0.01 * archs.indices[:, 0]

    assert selected(space, parity, 200).name == "trees"


def test_a_score_says_how_far_off_predictions_are():
    found = score_predictions(
        "toy", np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 8.0]), np.full(3, 0.6)
    )
    assert (found.tau, found.coverage) == (1.0, pytest.approx(2 / 3))
    assert found.mae == pytest.approx(5 / 3)
    assert found.rmse == pytest.approx(np.sqrt(17 / 3))
    densities = norm.logpdf([0.0, 1.0, 4.0], scale=0.6)
    assert found.log_likelihood == pytest.approx(densities.mean())


def test_a_gaussian_process_is_held_out_in_closed_form():
    """As if the rows had been left out, with scale and variances kept."""
    archs = ELASTIC.sample_distinct(30, 0)
    rows, values, noise = thermometer(archs), additive(archs, 0.1), np.linspace(0.0, 0.5, 30)
    fold = np.arange(30) % 3
    mean, deviation = make_surrogate("gaussian-process", ELASTIC).cross_validate(
        rows, values, noise, fold
    )
    model = make_surrogate("gaussian-process", ELASTIC).fit(rows, values, noise)
    transform = model.transform_
    kernel = model.factor_ @ model.factor_.T
    targets = (transform.forward(values) - model.mean_) / model.scale_
    out = fold == 1
    across = kernel[np.ix_(out, ~out)] @ np.linalg.inv(kernel[np.ix_(~out, ~out)])
    left = kernel[np.ix_(out, out)] - across @ kernel[np.ix_(~out, out)]
    expected = transform.backward(
        across @ targets[~out] * model.scale_ + model.mean_,
        np.sqrt(np.diag(left)) * model.scale_,
    )
    assert mean[out] == pytest.approx(expected[0])
    assert deviation[out] == pytest.approx(expected[1])


def test_trees_have_not_seen_the_rows_that_they_predict():
    pytest.importorskip("xgboost")
    archs = ELASTIC.sample_distinct(80, 0)
    rows, values, fold = thermometer(archs), additive(archs, 0.1), np.arange(80) % 5
    swapped = values.copy()
    swapped[fold == 1] = np.roll(values[fold == 1], 1)  # with the same mean and spread
    model = make_surrogate("trees", ELASTIC)
    before, deviation = model.cross_validate(rows, values, np.zeros(80), fold)
    after, _ = model.cross_validate(rows, swapped, np.zeros(80), fold)
    assert after[fold == 1] == pytest.approx(before[fold == 1])
    assert np.abs(after - before)[fold != 1].max() > 0.1 * values.std()
    assert deviation[0] == pytest.approx(np.sqrt(np.mean((values - before)[fold != 0] ** 2)))


class TestPredictor:
    def test_chooses_at_every_fit_and_says_so(self):
        archs = ELASTIC.sample_distinct(300, 0)
        predictor = Predictor(ELASTIC, "auto").fit(archs, interacting(archs))
        assert predictor.selection is not None
        assert predictor.selection.name in ("pairwise", "gaussian-process")
        predictor.fit(archs[:5], interacting(archs[:5]))
        assert predictor.selection.name == "gaussian-process"
        assert predictor.selection.scores == ()

    def test_a_named_one_has_no_selection(self):
        assert Predictor(ELASTIC, "linear").selection is None

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(InputError, match=r"unknown surrogate 'tree'.*Did you mean 'trees'"):
            Predictor(ELASTIC, "tree")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [24, 96])
def test_intervals_hold_what_they_should(name, n):
    if name == "trees":
        pytest.importorskip("xgboost")
    covered = []
    for seed in range(3):
        archs, asked = ELASTIC.sample_distinct(n, seed), ELASTIC.sample_distinct(400, 100 + seed)
        predictor = Predictor(ELASTIC, name).fit(archs, additive(archs, 0.2, seed))
        mean, deviation = predictor.predict(asked)
        covered.append(np.abs(mean - additive(asked)) <= 1.96 * deviation)
    assert 0.85 <= np.mean(covered) <= 1.0
