"""Searches that begin with given architectures."""

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace([Choice(f"width{n}", tuple(range(1, 9))) for n in range(4)])
START = SPACE.from_indices(
    [[7, 7, 7, k] for k in range(7, -1, -1)] + [[7, 7, k, 0] for k in range(7)]
)


def cost(archs):
    return archs.indices.sum(axis=1)


OBJECTIVES = [Objective("loss", "min"), Objective("cost", "min", exact=cost)]


def optimizer(start=START, **arguments):
    return Optimizer(SPACE, OBJECTIVES, seed=1, start=start, **arguments)


def told(optimizer, n_rounds):
    rounds = []
    for _ in range(n_rounds):
        archs = optimizer.ask()
        optimizer.tell(archs, [{"loss": float(v)} for v in (7.0 - archs.indices).sum(axis=1) ** 2])
        rounds.append(archs.ids)
    return rounds


@pytest.mark.parametrize("tactic", ["hwsearch", "additive"])
def test_it_begins_with_the_start_ends_first_and_spreads(tactic):
    found = told(optimizer(tactic=tactic), 3)
    assert found[0][:2] == [START.ids[0], START.ids[-1]]
    places = sorted(START.ids.index(key) for keys in found for key in keys)
    assert len(places) == 12
    assert max(np.diff(places)) <= 2


def test_a_third_of_the_start_is_of_the_batches_behind_the_first():
    others = SPACE.from_indices([[k, k, k, k] for k in range(7, -1, -1)])
    found = told(optimizer(start=(START, others)), 3)
    keys = [key for keys in found for key in keys]
    assert [key in START.ids for key in keys] == [True] * 8 + [False] * 4
    assert keys[8:10] == [others.ids[1], others.ids[-1]]  # the first is the path's as well


def test_what_misses_a_constraint_on_a_computed_objective_is_left_out():
    found = told(optimizer(constraints=["cost <= 24", "loss <= 1e9"]), 1)
    assert found[0][0] == START.ids[4]
    none = optimizer(constraints=["cost <= 3"])
    assert none.ask().ids[0] == SPACE.smallest().ids[0]  # the initial design instead


def test_a_search_goes_on_as_it_would_have():
    whole = told(optimizer(), 5)
    resumed = optimizer()
    for keys in whole[:4]:
        archs = SPACE.architectures([dict(arch) for arch in _by_key(keys)])
        resumed.ask_recorded(archs)
        values = (7.0 - archs.indices).sum(axis=1) ** 2
        resumed.tell(archs, [{"loss": float(v)} for v in values])
    assert resumed.ask().ids == whole[4]


def _by_key(keys):
    every = SPACE.enumerate(SPACE.size)
    return [every[every.ids.index(key)] for key in keys]


def test_a_start_of_another_space_is_refused():
    other = SearchSpace([Choice("width", (1, 2))])
    with pytest.raises(InputError, match="space"):
        optimizer(start=other.largest())
