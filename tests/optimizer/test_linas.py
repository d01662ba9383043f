import numpy as np
import pytest

from hwsearch.encoding import onehot
from hwsearch.optimizer import Optimizer, linas
from hwsearch.optimizer.history import History
from tests.optimizer.problems import Tabular, elastic_space

TABLE = Tabular(elastic_space(4))


def told(n, *, fails=0):
    history = History(TABLE.space, TABLE.objectives(), ())
    archs = TABLE.space.sample_distinct(n, 0)
    values = TABLE.evaluate(archs)
    history.tell(archs, [None] * fails + values[fails:])
    return history


def test_fifty_at_random_come_first():
    optimizer = Optimizer(TABLE.space, TABLE.objectives(), tactic="linas", seed=2)
    first = optimizer.ask()
    assert first == TABLE.space.sample_distinct(50, np.random.default_rng((2, 1)))


def test_then_whole_populations_that_are_better():
    optimizer = Optimizer(TABLE.space, TABLE.objectives(), tactic="linas")
    volumes = []
    for _ in range(3):
        archs = optimizer.ask()
        assert 40 <= len(archs) <= 50
        optimizer.tell(archs, TABLE.evaluate(archs))
        volumes.append(optimizer.hypervolume({"quality": 50.0, "cost": 300.0}))
    by_chance = Optimizer(TABLE.space, TABLE.objectives(), tactic="random", batch=150)
    archs = by_chance.ask()
    by_chance.tell(archs, TABLE.evaluate(archs))
    assert volumes[2] > volumes[1] > by_chance.hypervolume({"quality": 50.0, "cost": 300.0})


def test_the_population_is_that_of_the_inner_search(monkeypatch):
    monkeypatch.setattr("hwsearch.optimizer.linas.GENERATIONS", 5)
    history = told(60)
    population = linas._inner_search(history, np.random.default_rng(1))
    whole = linas.propose_by_linas(history, 50, 0, np.random.default_rng(1))
    assert set(whole.ids) == set(population.unique(history.asked).ids)
    few = linas.propose_by_linas(history, 7, 0, np.random.default_rng(1))
    assert len(few) == 7
    assert set(few.ids) < set(whole.ids)


def test_constraints_count_in_the_inner_search():
    optimizer = Optimizer(
        TABLE.space, TABLE.objectives(), tactic="linas", constraints=["cost <= 80"]
    )
    optimizer.tell(optimizer.ask(), TABLE.evaluate(optimizer.history.asked))
    second = optimizer.ask()
    assert (TABLE.values(second)["cost"] <= 80).mean() > 0.8


def test_where_nearly_all_failed_it_draws_by_chance():
    found = linas.propose_by_linas(told(60, fails=57), 6, 0, np.random.default_rng(1))
    assert len(found) == 6


@pytest.mark.parametrize("scale", [0.001, 1.0, 1e8])
def test_the_better_of_two_regressions_predicts_in_the_unit_of_the_values(scale):
    archs = TABLE.space.sample_distinct(80, 0)
    rows, values = onehot(archs), TABLE.values(archs)["cost"] * scale
    predict = linas._fitted(rows[:60], values[:60])
    assert np.abs(predict(rows[60:]) / values[60:] - 1).max() < 0.1
    constant = linas._fitted(rows[:60], np.zeros(60))
    assert np.abs(constant(rows[60:])).max() < 1e-9
