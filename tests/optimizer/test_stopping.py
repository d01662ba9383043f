"""Searches that end before their budget, each with one line that says why."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer, optimize
from hwsearch.optimizer.posterior import Posterior
from hwsearch.optimizer.stopping import Stopping
from tests.optimizer.problems import Tabular, elastic_space, flat_space

TABLE = Tabular(elastic_space(3))


def searched(table, n, **more):
    """An optimiser after n evaluations; one of the table of all tests is made once and copied."""
    if table is TABLE and not more:
        return deepcopy(searched_table(n))
    return begun(table, n, **more)


@cache
def searched_table(n):
    return begun(TABLE, n)


def begun(table, n, **more):
    optimizer = Optimizer(table.space, table.objectives(), **more)
    while len(optimizer.history.told) < n:
        archs = optimizer.ask()
        optimizer.tell(archs, table.evaluate(archs))
    return optimizer


class TestExpectedGain:
    @pytest.mark.parametrize(
        ("table", "begin"),
        [(TABLE, 12), (Tabular(flat_space(60)), 20)],
    )
    def test_it_is_of_the_size_of_what_the_search_then_adds(self, table, begin):
        optimizer = searched(table, begin, seed=1)
        expected, before = optimizer.expected_gain(50), optimizer.hypervolume()
        while len(optimizer.history.told) < begin + 50:
            archs = optimizer.ask()
            optimizer.tell(archs, table.evaluate(archs))
        added = optimizer.hypervolume() - before
        assert added / 5 < expected < 2 * added

    def test_it_falls_as_the_search_goes_on(self):
        gains = [searched(TABLE, n).expected_gain(50) for n in (12, 40)]
        assert gains[0] > 2 * gains[1] > 0

    def test_more_evaluations_are_expected_to_add_more(self):
        optimizer = searched(TABLE, 16)
        assert (
            optimizer.expected_gain(1) < optimizer.expected_gain(5) < optimizer.expected_gain(50)
        )

    def test_asking_for_it_changes_nothing(self):
        first, second = searched(TABLE, 16), searched(TABLE, 16)
        gains = [first.expected_gain(50) for _ in range(2)]
        assert gains[0] == gains[1]
        assert first.forecasts == second.forecasts
        assert first.ask() == second.ask()

    def test_none_before_there_are_surrogates_and_0_where_nothing_is_left(self):
        optimizer = Optimizer(TABLE.space, TABLE.objectives())
        assert optimizer.expected_gain(50) is None
        optimizer.tell(optimizer.ask(4), [None] * 4)
        assert optimizer.expected_gain(50) is None
        small = Tabular(elastic_space(1))
        assert searched(small, small.space.size).expected_gain(50) == 0.0
        with pytest.raises(InputError, match="number of evaluations 0"):
            optimizer.expected_gain(0)

    def test_what_misses_a_constraint_adds_nothing(self):
        assert searched(TABLE, 12, constraints=["quality >= 99"]).expected_gain(50) == 0.0

    def test_what_is_likely_to_fail_adds_less(self, monkeypatch):
        optimizer = searched(TABLE, 16)
        gain, forecast = optimizer.expected_gain(5), Posterior.forecast

        def unlikely(posterior, archs):
            return replace(forecast(posterior, archs), success=np.full(len(archs), 0.1))

        monkeypatch.setattr(Posterior, "forecast", unlikely)
        assert 0 < optimizer.expected_gain(5) < gain / 2

    @pytest.mark.parametrize("n_objectives", [1, 3])
    def test_one_objective_and_three(self, n_objectives):
        objectives = [*TABLE.objectives(), Objective("memory", "min")][:n_objectives]
        optimizer = Optimizer(TABLE.space, objectives)
        for _ in range(4):
            archs = optimizer.ask()
            optimizer.tell(archs, TABLE.evaluate(archs))
        assert optimizer.expected_gain(10) > 0


class TestOptimize:
    def test_it_ends_when_little_more_is_expected(self):
        result = optimize(TABLE.space, TABLE.evaluate, TABLE.objectives(), budget=150, stop_gain=4)
        n = len(result.trials)
        assert 12 <= n <= 60
        assert result.ended.startswith(
            f"the search ended after {n} of 150 evaluations: the next 50 are expected to add "
        )
        assert result.ended.endswith("% of the hypervolume, less than 4%")
        assert result.ended in str(result)
        full = optimize(TABLE.space, TABLE.evaluate, TABLE.objectives(), budget=n)
        assert full.ended == ""
        assert full.trials.equals(result.trials)

    def test_it_ends_when_its_minutes_are_over(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr("time.monotonic", lambda: now[0])

        def slow(archs):
            now[0] += 60.0
            return TABLE.evaluate(archs)

        result = optimize(
            TABLE.space, slow, TABLE.objectives(), budget=80, minutes=2.5, tactic="random"
        )
        assert len(result.trials) == 12
        assert result.ended == (
            "the search ended after 12 of 80 evaluations: its 2.5 minutes are over"
        )

    def test_a_budget_that_is_spent_needs_no_reason(self):
        result = optimize(
            TABLE.space, TABLE.evaluate, TABLE.objectives(), budget=12, minutes=60, stop_gain=1e-6
        )
        assert (len(result.trials), result.ended) == (12, "")

    @pytest.mark.parametrize("name", ["minutes", "stop_gain"])
    @pytest.mark.parametrize("given", [0, -1.0, np.nan, np.inf, "ten", True])
    def test_refuses(self, name, given):
        with pytest.raises(InputError, match=f"{name} {given!r} is not usable; give a positive"):
            Stopping(budget=1, **{name: given})
