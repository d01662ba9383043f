"""Against a list of everything there is."""

import ctypes
import os

import numpy as np
import pytest
import scipy.optimize

from hwsearch.encoding import onehot
from hwsearch.optimizer.integer_program import Bound, IntegerProgram
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
def program(request):
    space = SPACES[request.param]
    last = len(space.choices) - 1
    return IntegerProgram(space, [(0, 1), (1, last), (1, 2), (2, last)])


def everything(program):
    return program.space.enumerate(5000)


def test_terms_are_options_and_their_combinations(program):
    archs = everything(program)
    terms = program.variables(archs)
    assert terms.shape == (len(archs), program.n_variables)
    assert np.array_equal(terms[:, : program.n_options], onehot(archs))
    first_pair = terms[:, program.n_options :][:, : len(program.space.choices[1].options)]
    one = archs.active[:, 1] & (archs.indices[:, 0] == 0)
    assert np.array_equal(first_pair.sum(axis=1), one)


@pytest.mark.parametrize("seed", range(4))
def test_the_least_of_all_is_found(program, seed):
    weights = np.random.default_rng(seed).normal(size=program.n_variables)
    sums = program.variables(everything(program)) @ weights
    found = program.minimise(weights, [], everything(program)[:0])
    assert program.variables(found) @ weights == pytest.approx(sums.min())


@pytest.mark.parametrize("seed", range(4))
def test_so_it_is_within_bounds(program, seed):
    rng = np.random.default_rng(seed)
    weights, costs = rng.normal(size=(2, program.n_variables))
    terms = program.variables(everything(program))
    limit = float(np.quantile(terms @ costs, 0.1))
    inside = terms @ costs <= limit + 1e-9
    found = program.variables(program.minimise(weights, [Bound(costs, limit)], _none(program)))
    assert found @ costs <= limit + 1e-6
    assert found @ weights == pytest.approx((terms @ weights)[inside].min())


def test_the_next_best_follow_one_by_one(program):
    weights = np.random.default_rng(9).normal(size=program.n_variables)
    sums = np.sort(program.variables(everything(program)) @ weights)
    found = _none(program)
    for n in range(6):
        best = program.minimise(weights, [], found)
        assert program.variables(best) @ weights == pytest.approx(sums[n])
        found = Architectures.concatenate([found, best])
    assert len(found.unique()) == 6


def test_nothing_within_the_bounds_is_said(program):
    costs = np.zeros(program.n_variables)
    assert program.minimise(costs, [Bound(costs, -1.0)], _none(program)) is None
    if program.space.size < 500:
        assert program.minimise(costs, [], everything(program)) is None


def test_nothing_that_is_printed_from_c_reaches_stdout(program, capfd, monkeypatch):
    def chatty(*args, **more):
        ctypes.CDLL(None).printf(b"HighsMipSolverData::chatter\n")
        return solve(*args, **more)

    solve = scipy.optimize.milp
    monkeypatch.setattr("scipy.optimize.milp", chatty)
    os.write(1, b"before\n")
    program.minimise(np.ones(program.n_variables), [], _none(program))
    os.write(1, b"after\n")
    out, error = capfd.readouterr()
    assert (out, error) == ("before\nafter\n", "HighsMipSolverData::chatter\n")


def _none(program):
    return everything(program)[:0]
