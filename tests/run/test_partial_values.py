"""Which partly known architectures are worth measuring, on tables with known fronts."""

import numpy as np
import pytest

from hwsearch.constraints import Constraint
from hwsearch.objectives import Estimate, Objective, hypervolume, is_non_dominated
from hwsearch.optimizer.history import History
from hwsearch.run.warm_start import PartialValues
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace([Choice(f"width{i}", (1, 2, 3, 4)) for i in range(4)])
OBJECTIVES = (Objective("top1", "max"), Objective("latency", "min"))
N = 60


def partial(constraints=(), proxies=True, seed=0):
    """Accuracies of a known table, and latencies of another device as a proxy."""
    archs = SPACE.sample_distinct(N, seed)
    sizes = archs.indices.sum(axis=1) + 4.0
    rng = np.random.default_rng(seed)
    top1 = 90 - 40 / sizes + 0.3 * rng.standard_normal(N)
    there = sizes * np.exp(0.02 * rng.standard_normal(N))
    here = 0.5 * there * (1 + 0.03 * archs.indices[:, 0])
    unknown = np.full(N, np.nan)
    table = PartialValues(
        archs=archs,
        history=History(SPACE, OBJECTIVES, [Constraint.parse(c) for c in constraints]),
        values=np.column_stack([top1, unknown]),
        proxies=np.column_stack([unknown, there if proxies else unknown]),
    )
    return table, np.column_stack([top1, here])


def measured(table, truth, batch=4):
    """Measure what is worth it, until nothing is; returns the rows."""
    left = np.ones(N, bool)
    for _ in range(N):
        left &= ~table.complete
        rows = table.worth_measuring(left, batch)
        assert len(rows) <= batch
        assert left[rows].all()
        if not len(rows):
            return np.flatnonzero(table.complete)
        for row in rows:
            table.fill(row, {"latency": truth[row, 1], "other": 1.0})
    raise AssertionError("it never ends")


def test_few_are_measured_and_reach_what_all_of_them_do():
    table, truth = partial()
    rows = measured(table, truth)
    losses = truth * [-1, 1]
    front = np.flatnonzero(is_non_dominated(losses))
    assert len(rows) <= len(front) + 6 < N / 2
    reference = losses.max(axis=0)
    assert hypervolume(losses[rows], reference) > 0.995 * hypervolume(losses, reference)


def test_at_first_the_front_by_proxies_is_spread():
    table, truth = partial()
    rows = table.worth_measuring(np.ones(N, bool), 3)
    proxied = np.column_stack([-truth[:, 0], table.proxies[:, 1]])
    front = np.flatnonzero(is_non_dominated(proxied))
    ends = front[np.argsort(proxied[front, 0])][[0, -1]]
    assert set(ends) <= set(rows) <= set(front)


def test_what_is_missing_is_a_multiple_of_the_proxy_with_a_deviation():
    table, truth = partial()
    assert np.isnan(table.forecast()[0][:, 1]).all()
    for row in range(8):
        table.fill(row, {"latency": truth[row, 1]})
    values, deviations = table.forecast()
    assert values[8:, 1] == pytest.approx(truth[8:, 1], rel=0.1)
    assert (deviations[:8] == 0).all()
    assert (deviations[8:, 1] > 0).all()
    assert (deviations[:, 0] == 0).all()


def test_without_a_proxy_all_are_worth_it():
    table, truth = partial(proxies=False)
    assert len(measured(table, truth)) == N


def test_constraints_keep_the_effort_where_they_hold():
    free, truth = partial()
    rows = measured(free, truth)
    bound = float(np.quantile(truth[:, 1], 0.2))
    tight, truth = partial([f"latency <= {bound}"])
    fewer = measured(tight, truth)
    assert len(fewer) < len(rows)
    inside = np.where(truth[:, 1:] <= bound, truth * [-1, 1], np.nan)
    assert len(set(np.flatnonzero(is_non_dominated(inside))) - set(fewer)) <= 1


def test_what_failed_dominates_nothing():
    """The best by far cannot be built here."""
    table, truth = partial()
    for row in range(1, 9):
        table.fill(row, {"latency": truth[row, 1]})
    table.values[0, 0], table.proxies[0, 1] = 99.0, 0.1
    left = ~table.complete
    assert 0 in table.worth_measuring(left, N)
    left[0] = False
    rows = table.worth_measuring(left, N)
    assert len(rows)
    assert 0 not in rows


def test_values_are_told_as_they_are_and_what_is_missing_as_an_estimate():
    table, truth = partial()
    for row in range(6):
        table.fill(row, {"latency": truth[row, 1]})
    whole, part = table.told(np.array([0, 7]))
    assert whole == {"top1": truth[0, 0], "latency": truth[0, 1]}
    assert part["top1"] == truth[7, 0]
    assert isinstance(part["latency"], Estimate)
