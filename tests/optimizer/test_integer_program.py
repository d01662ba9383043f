"""Against a list of everything there is."""

import ctypes
import os

import numpy as np
import pytest
import scipy.optimize

from hwsearch.optimizer.integer_program import Bound, Programme
from hwsearch.space import Architectures, Choice, SearchSpace
from tests.optimizer.problems import elastic_space, operator_space

NESTED = SearchSpace(
    [
        Choice("kind", ("plain", "split")),
        Choice("parts", (2, 3, 4), ("kind", ("split",))),
        Choice("third.width", (8, 16), ("parts", (3, 4))),
        Choice("fourth.width", (8, 16, 24), ("parts", (4,))),
        Choice("width", (8, 16, 24)),
        Choice("fixed", (1,)),
    ]
)
SPACES = {"elastic": elastic_space(2), "operators": operator_space(4), "nested": NESTED}


@pytest.fixture(params=SPACES)
def programme(request):
    space = SPACES[request.param]
    last = len(space.choices) - 1
    return Programme(space, [(0, 1), (1, last), (1, 2), (2, last)])


def everything(programme):
    return programme.space.enumerate(5000)


def test_terms_are_options_and_their_combinations(programme):
    archs = everything(programme)
    terms = programme.terms(archs)
    assert terms.shape == (len(archs), programme.n_terms)
    assert np.array_equal(terms[:, : programme.n_options], programme.space.encode(archs))
    first_pair = terms[:, programme.n_options :][:, : len(programme.space.choices[1].options)]
    one = archs.active[:, 1] & (archs.indices[:, 0] == 0)
    assert np.array_equal(first_pair.sum(axis=1), one)


@pytest.mark.parametrize("seed", range(4))
def test_the_least_of_all_is_found(programme, seed):
    weights = np.random.default_rng(seed).normal(size=programme.n_terms)
    sums = programme.terms(everything(programme)) @ weights
    found = programme.minimise(weights, [], everything(programme)[:0])
    assert programme.terms(found) @ weights == pytest.approx(sums.min())


@pytest.mark.parametrize("seed", range(4))
def test_so_it_is_within_bounds(programme, seed):
    rng = np.random.default_rng(seed)
    weights, costs = rng.normal(size=(2, programme.n_terms))
    terms = programme.terms(everything(programme))
    limit = float(np.quantile(terms @ costs, 0.1))
    inside = terms @ costs <= limit + 1e-9
    found = programme.terms(programme.minimise(weights, [Bound(costs, limit)], _none(programme)))
    assert found @ costs <= limit + 1e-6
    assert found @ weights == pytest.approx((terms @ weights)[inside].min())


def test_the_next_best_follow_one_by_one(programme):
    weights = np.random.default_rng(9).normal(size=programme.n_terms)
    sums = np.sort(programme.terms(everything(programme)) @ weights)
    found = _none(programme)
    for n in range(6):
        best = programme.minimise(weights, [], found)
        assert programme.terms(best) @ weights == pytest.approx(sums[n])
        found = Architectures.concatenate([found, best])
    assert len(found.unique()) == 6


def test_nothing_within_the_bounds_is_said(programme):
    costs = np.zeros(programme.n_terms)
    assert programme.minimise(costs, [Bound(costs, -1.0)], _none(programme)) is None
    if programme.space.size < 500:
        assert programme.minimise(costs, [], everything(programme)) is None


def test_nothing_that_is_printed_from_c_reaches_stdout(programme, capfd, monkeypatch):
    def chatty(*args, **more):
        ctypes.CDLL(None).printf(b"HighsMipSolverData::chatter\n")
        return solve(*args, **more)

    solve = scipy.optimize.milp
    monkeypatch.setattr("scipy.optimize.milp", chatty)
    os.write(1, b"before\n")
    programme.minimise(np.ones(programme.n_terms), [], _none(programme))
    os.write(1, b"after\n")
    out, error = capfd.readouterr()
    assert (out, error) == ("before\nafter\n", "HighsMipSolverData::chatter\n")


def _none(programme):
    return everything(programme)[:0]
