import numpy as np
import pytest
from scipy.stats import kendalltau

import hwsearch
from hwsearch.encoding import column_effects, thermometer, thermometer_columns
from hwsearch.errors import InputError
from hwsearch.objectives import Objective
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


LAYERS = SearchSpace([Choice(f"layer{n}", (1, 2, 3, 4, "all")) for n in range(40)])
ORDERED = SearchSpace([Choice(f"layer{n}", (1, 2, 3, 4, 5)) for n in range(40)])


def steps_of(space, seed):
    """Effects that differ from choice to choice by two orders of magnitude."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(0.0, 2.0, len(space.choices)))
    return {
        name: (size / np.arange(1, 6) ** 2).tolist()
        for name, size in zip(space.names, sizes, strict=True)
    }


def loss_of(archs, effects):
    table = np.array([effects[name] for name in archs.space.names])
    return table[np.arange(len(table)), archs.indices].sum(axis=1)


@pytest.mark.parametrize("space", [LAYERS, ORDERED], ids=["unordered", "ordered"])
@pytest.mark.parametrize("sign", [1.0, -3.0])
def test_known_effects_predict_from_few_values(space, sign):
    effects = steps_of(space, 0)
    known, others = space.sample(6, 0), space.sample(200, 1)
    values = sign * loss_of(known, effects) ** 1.2
    truth = sign * loss_of(others, effects) ** 1.2
    told = Predictor(space, effects=effects).fit(known, values).predict_mean(others)
    untold = Predictor(space).fit(known, values).predict_mean(others)
    assert kendalltau(told, truth)[0] > 0.9 > 0.5 > kendalltau(untold, truth)[0]


def test_measured_values_overrule_wrong_effects():
    wrong, right = steps_of(ORDERED, 1), steps_of(ORDERED, 2)
    known, others = ORDERED.sample(150, 0), ORDERED.sample(200, 1)
    values, truth = loss_of(known, right), loss_of(others, right)
    misled = Predictor(ORDERED, effects=wrong).fit(known, values).predict_mean(others)
    untold = Predictor(ORDERED).fit(known, values).predict_mean(others)
    assert kendalltau(misled, truth)[0] > kendalltau(untold, truth)[0] - 0.05


def test_effects_are_those_of_columns():
    space = SearchSpace(
        [
            Choice("depth", (2, 3)),
            Choice("width", (8, 16, 32), active=("depth", (3,))),
            Choice("kind", ("a", "b")),
        ]
    )
    effects = {"width": [1.0, 4.0, 9.0], "kind": [0.5, 0.0]}
    assert column_effects(space, effects) == (0.0, 1.0, 3.0, 5.0, 0.5, 0.0)
    assert column_effects(space, {"depth": [0, 0]}) == column_effects(space, None) == ()


@pytest.mark.parametrize(
    ("effects", "said"),
    [
        ({"layer99": [1.0]}, "layer99"),
        ({"layer1": [1.0, 2.0]}, "one finite number for each"),
        ({"layer1": [1, 2, 3, 4, float("nan")]}, "layer1"),
    ],
)
def test_effects_that_do_not_fit_are_refused(effects, said):
    with pytest.raises(InputError, match=said):
        hwsearch.Optimizer(ORDERED, [Objective("loss", "min", effects=effects)])
