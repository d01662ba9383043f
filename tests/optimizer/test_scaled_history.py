"""Objectives with a limit, of which a search weighs ratios of distances from it."""

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.objectives import Estimate, Objective
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.scaled_history import ScaledHistory
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace([Choice(f"width{n}", tuple(range(1, 9))) for n in range(6)])
DISTANCE = Objective("distance", "min", limit=-0.01)
SHARE = Objective("share", "max", limit=101.0)
COST = Objective("cost", "min", exact=lambda archs: archs.indices.sum(axis=1))


def history(values, objectives=(DISTANCE, COST), constraints=()):
    optimizer = Optimizer(SPACE, objectives, constraints=constraints)
    optimizer.tell(SPACE.sample_distinct(len(values), 0), values)
    return optimizer.history


def test_values_are_logarithms_of_the_distance_from_the_limit():
    given = history([{"distance": 0.0}, {"distance": 0.99}, None])
    scaled = ScaledHistory(given)
    np.testing.assert_allclose(scaled.values[:, 0], [np.log(0.01), 0.0, np.nan], atol=1e-12)
    np.testing.assert_array_equal(scaled.values[:, 1], given.values[:, 1])
    np.testing.assert_allclose(scaled.in_units(scaled.values), given.values, atol=1e-12)
    assert given.values[1, 0] == 0.99


def test_values_of_a_maximised_objective_rise_as_well():
    scaled = ScaledHistory(history([{"share": 1.0}, {"share": 100.0}], [SHARE, COST]))
    np.testing.assert_allclose(scaled.values[:, 0], [-np.log(100.0), 0.0], atol=1e-12)


def test_deviations_of_estimates_are_relative_to_the_distance():
    scaled = ScaledHistory(history([{"distance": Estimate(0.09, 0.02)}]))
    assert scaled.deviations[0, 0] == pytest.approx(0.2)


def test_constraints_and_forecasts_are_in_the_units_of_users():
    given = history([{"distance": d} for d in (0.1, 0.3)], constraints=["distance <= 0.2"])
    scaled = ScaledHistory(given)
    assert scaled.feasible(scaled.values).tolist() == [True, False]
    archs = SPACE.largest()
    scaled.record_forecasts(archs, np.log([[0.06, 1.0]]), np.array([[0.5, 0.0]]))
    mean, deviation = given.latest_forecasts[archs.ids[0]]["distance"]
    assert (mean, deviation) == (pytest.approx(0.05), pytest.approx(0.03))


@pytest.mark.parametrize(("objective", "value"), [(DISTANCE, -0.01), (SHARE, 150.0)])
def test_values_beyond_the_limit_are_refused(objective, value):
    with pytest.raises(InputError, match=f"{objective.name} was told as .* limit"):
        history([{objective.name: value}], [objective, COST])


def test_a_limit_is_finite():
    with pytest.raises(InputError, match="limit of 'kl'"):
        Objective("kl", "min", limit=float("inf"))


def test_a_search_halves_small_distances_where_a_limit_says_that_they_count():
    def distance(archs):
        return np.exp(-archs.indices @ np.array([2.0, 1.5, 0.5, 0.3, 0.2, 0.1])) * 5

    def best(limit):
        optimizer = Optimizer(SPACE, [Objective("distance", "min", limit=limit), COST], seed=3)
        for _ in range(10):
            archs = optimizer.ask()
            optimizer.tell(archs, [{"distance": float(v)} for v in distance(archs)])
        cost, found = optimizer.history.values[:, 1], optimizer.history.values[:, 0]
        levels = range(6, 30, 2)
        return np.mean([np.log(found[cost <= level].min()) for level in levels])

    assert best(-1e-9) < best(None) - 0.5


def test_expected_gains_are_in_the_units_of_users():
    optimizer = Optimizer(SPACE, [DISTANCE, COST], seed=0)
    for _ in range(4):
        archs = optimizer.ask()
        values = np.exp(-archs.indices.sum(axis=1) / 5.0)
        optimizer.tell(archs, [{"distance": float(v)} for v in values])
    assert 0.0 <= optimizer.expected_gain(10) < optimizer.hypervolume()
