import numpy as np
import pytest
from scipy.stats import kendalltau

from hwsearch.encoding import thermometer, thermometer_columns
from hwsearch.prediction import Predictor
from hwsearch.prediction.prior_covariance import (
    kind_indices,
    prior_covariances,
)
from hwsearch.space import Choice, SearchSpace
from tests.optimizer.problems import elastic_space, operator_space

SPACES = [elastic_space(5), operator_space(6), SearchSpace([Choice("one", (1,))])]


@pytest.mark.parametrize("space", SPACES, ids=["elastic", "operators", "single"])
def test_priors_are_covariances_of_unit_variance(space):
    rows = thermometer(space.sample(500, 1))
    rows -= rows.mean(axis=0)
    for prior in prior_covariances(space):
        assert np.linalg.eigvalsh(prior.covariance).min() > -1e-9
        values = np.einsum("ij,ij->i", rows @ prior.covariance, rows)
        assert values.mean() == pytest.approx(1.0, rel=0.3)


def test_a_kind_is_how_a_name_ends_and_its_options():
    space = SearchSpace(
        [
            Choice("stage1.block2.kernel", (3, 5)),
            Choice("stage4.block1.kernel", (3, 5)),
            Choice("stage2.block2.kernel", (3, 5, 7)),
            Choice("stage1.block2.width", (3, 5)),
            Choice("edge1", ("conv", "skip")),
            Choice("edge12", ("conv", "skip")),
        ]
    )
    assert kind_indices(space).tolist() == [0, 0, 1, 2, 3, 3]


def test_unordered_choices_share_by_option_only():
    space = operator_space(6)
    assert not thermometer_columns(space).ordered.any()
    rows = thermometer(space.sample(50, 0))
    shared = prior_covariances(space)[0].covariance
    column = {tuple(row): place for place, row in enumerate(np.round(shared, 9).tolist())}
    assert len(column) == len(space.choices[0].options)
    assert rows.shape[1] == len(shared)


def test_few_values_of_a_kind_predict_the_other_choices_of_it():
    choices = [
        Choice(f"block{n}.{name}", (1, 2, 3)) for n in range(12) for name in ("useful", "useless")
    ]
    space = SearchSpace(choices)
    known, others = space.sample(20, 0), space.sample(200, 1)
    useful = np.array([choice.name.endswith("useful") for choice in choices])

    def values(archs):
        return archs.indices[:, useful].sum(axis=1) + 0.1 * archs.indices[:, ~useful].sum(axis=1)

    mean, _ = Predictor(space).fit(known, values(known)).predict(others)
    assert kendalltau(mean, values(others))[0] > 0.9
