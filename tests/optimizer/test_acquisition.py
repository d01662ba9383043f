from dataclasses import dataclass

import numpy as np
import pytest

from hwsearch.constraints import check_constraints
from hwsearch.objectives import Estimate, Objective
from hwsearch.optimizer.acquisition import choose_batch, find_candidates
from hwsearch.optimizer.history import History
from hwsearch.optimizer.posterior import Forecast, Posterior
from tests.optimizer.problems import Tabular, elastic_space, flat_space

SPACE = flat_space(1, 10)
OBJECTIVES = [Objective("quality", "max"), Objective("cost", "min")]
ARCHS = SPACE.enumerate(10)
# Of the ten, 0 and 1 are told: (quality, cost) 60 at 10 and 70 at 90.
QUALITY = np.array([60, 70, 69, 68, 65, 59, 50, 50, 61, 71.0])
COST = np.array([10, 90, 50, 50, 20, 80, 95, 95, 15, 88.0])


@dataclass
class Scripted:
    """A posterior that says what the test wants it to."""

    deviation: np.ndarray
    success: np.ndarray

    def forecast(self, archs):
        place = archs.indices[:, 0]
        return Forecast(
            mean=np.column_stack([QUALITY, COST])[place],
            deviation=np.column_stack([self.deviation, np.zeros(10)])[place],
            success=self.success[place],
        )


@pytest.fixture
def certain():
    return Scripted(np.zeros(10), np.ones(10))


def history(*constraints):
    made = History(SPACE, OBJECTIVES, check_constraints(constraints, ["quality", "cost"]))
    values = [{"quality": q, "cost": c} for q, c in zip(QUALITY[:2], COST[:2], strict=True)]
    made.tell(ARCHS[:2], values)
    return made


def chosen(history, posterior, n):
    left = ARCHS.unique(history.asked)
    batch = choose_batch(history, posterior, left, n, np.random.default_rng(0))
    return batch.indices[:, 0].tolist()


def test_second_choice_counts_on_the_first(certain):
    assert chosen(history(), certain, 1) == [2]
    assert chosen(history(), certain, 2) == [2, 4]  # not 3, which 2 leaves nothing to gain


def test_what_is_known_in_part_counts_as_believed(certain):
    """Told far too high, it still leaves something to gain beside what the posterior has of it."""
    estimated = history()
    estimated.tell(ARCHS[[2]], [{"quality": Estimate(90.0, 5.0), "cost": COST[2]}])
    assert chosen(estimated, certain, 3) == [4, 9, 8]
    assert estimated.front.tolist() == [True, True, False]


def test_pending_counts_as_if_it_was_told(certain):
    pending = history()
    pending.ask(ARCHS[[2]])
    assert chosen(pending, certain, 1) == [4]


def test_likely_failures_give_way(certain):
    certain.success[2] = 0.2
    assert chosen(history(), certain, 1) == [4]


def test_infeasible_ones_give_way(certain):
    assert chosen(history("quality <= 66"), certain, 1) == [4]
    assert chosen(history("cost <= 30"), certain, 1) == [4]


def test_nearest_to_feasible_comes_first_while_nothing_is(certain):
    certain.deviation[6:9] = 0.5
    assert chosen(history("quality >= 100"), certain, 3) == [9, 2, 3]


def test_least_certain_comes_where_nothing_is_to_gain(certain):
    certain.deviation[7] = 1.0
    after = history()
    after.tell(ARCHS[2:5], [{"quality": 72.0, "cost": 5.0}] * 3)
    assert chosen(after, certain, 1) == [7]


def test_uncertainty_is_worth_something(certain):
    certain.deviation[5] = 400.0
    assert chosen(history(), certain, 1) == [5]


def test_last_of_a_full_batch_explores(certain):
    certain.deviation[5] = 6.0  # 71 at 80 where it comes out two deviations better
    assert chosen(history(), certain, 3) == [2, 4, 9]
    assert chosen(history(), certain, 4) == [2, 4, 9, 5]
    assert chosen(history(), certain, 5) == [2, 4, 9, 8, 5]


def test_large_spaces_are_searched_inside_the_constraints():
    table = Tabular(elastic_space(4))
    narrow = History(
        table.space, table.objectives(), check_constraints(["cost <= 60"], ["quality", "cost"])
    )
    first = table.space.sample_spread(8, 0)
    narrow.tell(first, table.evaluate(first))
    found = find_candidates(narrow, Posterior(narrow), np.random.default_rng(0))
    assert len(found) == len(found.unique(narrow.asked)) > 20
    assert (table.values(found)["cost"] <= 60).mean() > 0.9
