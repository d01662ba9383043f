import numpy as np
import pytest

from hwsearch.prediction.linear import LinearModel

STEPS = np.array([True] * 8 + [False] * 4)


def rows(n, seed=0):
    steps = np.random.default_rng(seed).integers(0, 2, (n, 8))
    options = np.eye(4)[np.random.default_rng(seed + 1).integers(0, 4, n)]
    return np.concatenate([steps, options], axis=1)


def noisy(x, sign=1.0, noise=1.5):
    gains = np.array([6.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 2.0])
    return sign * (x @ gains) + np.random.default_rng(5).normal(0.0, noise, len(x))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_step_has_another_sign_than_the_sum(sign):
    x = rows(25)
    free = LinearModel().fit(x, noisy(x, sign)).columns_[1:9, 0]
    gains = LinearModel(steps=STEPS).fit(x, noisy(x, sign)).columns_[1:9, 0]
    assert (sign * free < 0).any()
    assert (sign * gains >= 0).all()
    assert (gains != 0).any()


def test_other_columns_keep_their_own_signs():
    x = rows(60)
    options = LinearModel(steps=STEPS).fit(x, noisy(x, noise=0.1)).columns_[9:, 0]
    assert options - options.mean() == pytest.approx([-1.5, -0.5, 0.5, 1.5], abs=0.2)


def test_is_the_linear_model_where_no_gain_has_the_wrong_sign():
    x = rows(60)
    y = x @ np.arange(1.0, 13.0)
    free, one_sign = (
        model.fit(x, y).predict(x) for model in (LinearModel(), LinearModel(steps=STEPS))
    )
    assert one_sign[0] == pytest.approx(free[0])
    assert one_sign[1] == pytest.approx(free[1])


def test_is_surer_of_a_step_that_brings_nothing():
    x = rows(25)
    one_sign, free = (m.fit(x, noisy(x)) for m in (LinearModel(steps=STEPS), LinearModel()))
    surer, less_sure = (
        m.deviation_of_sums(x @ m.columns_[1:] + m.columns_[0]) for m in (one_sign, free)
    )
    assert one_sign.transform_ == free.transform_
    assert (surer <= less_sure * (1 + 1e-6)).all()
    assert surer.mean() < 0.99 * less_sure.mean()
