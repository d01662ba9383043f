"""A covariance as a matrix and as rows give the same least squares, and the least there is."""

import numpy as np
import pytest

from hwsearch.elastic.repair.covariance import Dense, Factored, cholesky
from hwsearch.elastic.repair.elimination import elimination


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 24)) @ rng.standard_normal((24, 24))
    return (x - x.mean(axis=0)) / np.sqrt(len(x))


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(1).standard_normal((5, 24))


def both(rows):
    return Dense(rows.T @ rows), Factored(rows)


KEPT, REMOVED = np.arange(0, 24, 2), np.arange(1, 24, 2)


def test_both_forms_agree(rows, weight):
    dense, factored = both(rows)
    blocks = [np.array([1, 3]), np.array([5, 7]), np.array([9, 11])]
    others = np.setdiff1d(np.arange(24), np.concatenate(blocks))
    for a, b in (
        (dense.energy(weight), factored.energy(weight)),
        (dense.mean_diagonal(KEPT), factored.mean_diagonal(KEPT)),
        (
            dense.recovered(weight[:, REMOVED], KEPT, REMOVED, 0.05),
            factored.recovered(weight[:, REMOVED], KEPT, REMOVED, 0.05),
        ),
        (dense.lost(weight, others, blocks, 0.05), factored.lost(weight, others, blocks, 0.05)),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_recovered_is_ridge_regression(rows, weight):
    x, lacking = rows[:, KEPT], rows[:, REMOVED] @ weight[:, REMOVED].T
    level = 0.05 * np.square(x).sum() / len(KEPT)
    stacked = np.vstack([x, np.sqrt(level) * np.eye(len(KEPT))])
    expected = np.linalg.lstsq(stacked, np.vstack([lacking, np.zeros((len(KEPT), 5))]))[0].T
    found = both(rows)[0].recovered(weight[:, REMOVED], KEPT, REMOVED, 0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_lost_is_what_each_regression_leaves(rows, weight):
    order = np.random.default_rng(2).permutation(24).reshape(12, 2)
    lost = both(rows)[0].lost(weight, np.zeros(0, int), list(order), 1e-9)
    assert lost[0] == pytest.approx(both(rows)[0].energy(weight), rel=1e-6)
    assert lost[-1] == 0
    for count in (3, 7, 11):
        kept = order[:count].ravel()
        y = rows @ weight.T
        left = y - rows[:, kept] @ np.linalg.lstsq(rows[:, kept], y)[0]
        assert lost[count] == pytest.approx(np.square(left).sum(), rel=1e-5)


def test_a_constant_input_recovers_and_loses_nothing(weight):
    for covariance in (Dense(np.zeros((24, 24))), Factored(np.zeros((3, 24)))):
        assert not covariance.recovered(weight[:, REMOVED], KEPT, REMOVED, 0.1).any()
        assert not covariance.lost(weight, KEPT, [REMOVED], 0.1).any()
        assert elimination(covariance, weight, np.arange(24)[:, None], 0.1) is None


def test_the_ridge_grows_where_rounding_made_a_covariance_indefinite():
    matrix = np.diag([1.0, 1.0, -1e-3])
    lower = cholesky(matrix, 1e-6)
    np.testing.assert_allclose(lower @ lower.T, matrix + 1e-2 * np.eye(3))


@pytest.mark.parametrize("width", [1, 3])
def test_costs_are_those_of_least_squares_after_any_removals(rows, weight, width):
    blocks = np.random.default_rng(3).permutation(24).reshape(-1, width)
    ridge = 1e-9
    forms = [elimination(c, weight, blocks, ridge) for c in both(rows)]
    dense = both(rows)[0]
    remaining = blocks
    for gone in (np.array([1]), np.array([0, 4]), None):
        costs = []
        for block in remaining:
            kept = np.setdiff1d(remaining, block)
            before = dense.lost(
                weight, remaining.ravel(), [np.setdiff1d(np.arange(24), remaining)], ridge
            )
            after = dense.lost(weight, kept, [np.setdiff1d(np.arange(24), kept)], ridge)
            costs.append(after[0] - before[0])
        for each in forms:
            np.testing.assert_allclose(each.costs(), costs, rtol=1e-3)
        if gone is not None:
            for each in forms:
                each.remove(gone)
            remaining = np.delete(remaining, gone, axis=0)
