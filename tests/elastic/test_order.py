import numpy as np
import pytest

from hwsearch.elastic.graph import Group
from hwsearch.elastic.repair.order import unit_orders
from hwsearch.elastic.repair.statistics import gather
from tests.elastic.small_models import MODELS, mlp, residual_cnn, samples, transformer


def orders_of(structure, count=60):
    return unit_orders(structure, gather(structure, [samples(structure, count)], rows=3000))


@pytest.mark.parametrize("name", MODELS)
def test_every_unit_is_in_its_order_once(name):
    structure = MODELS[name]()
    orders = orders_of(structure)
    assert list(orders) == [group.name for group in structure.groups]
    for group in structure.groups:
        assert sorted(orders[group.name]) == list(range(group.size))
        assert orders[group.name].dtype == np.int64


def test_units_that_nothing_needs_go_first():
    structure = mlp()
    weights = structure.graph.weights
    weights["fc2.weight"][[3, 9]] = 0  # not read
    weights["fc1.weight"][5], weights["fc1.bias"][5] = 0, 0.7  # constant
    weights["fc1.weight"][20] = 2 * weights["fc1.weight"][21]  # a multiple of another
    weights["fc1.bias"][20] = 2 * weights["fc1.bias"][21]
    weights["fc2.weight"][20] *= 10
    order = list(orders_of(structure)["fc1.width"])
    assert set(order[-3:-1] + order[-1:]) >= {3, 9}
    # One of the two that are the same is not needed; a constant needs another one or a bias.
    assert min(order.index(20), order.index(21)) < 32 - 4 <= max(order.index(20), order.index(21))


def test_a_constant_unit_is_worth_nothing_to_a_layer_with_a_bias():
    structure = residual_cnn()
    weights = structure.graph.weights
    weights["down.weight"][7], weights["down.bias"][7] = 0, 3
    assert orders_of(structure)["down.width"][-3:].tolist().count(7)  # beside dead units


def test_heads_are_ranked_by_what_follows():
    structure = transformer()
    structure.graph.weights["attention.output.weight"][6:12] *= 1e-3
    assert orders_of(structure)["attention.heads"][-1] == 1


def test_parts_keep_equal_shares_in_every_prefix():
    structure = mlp()
    group = structure.groups[0]
    parts = np.array([0] * 8 + [1] * 16 + [2] * 8)
    parted = Group(
        name=group.name, kind=group.kind, size=group.size, slots=group.slots, parts=parts
    )
    structure = type(structure)(
        graph=structure.graph, groups=(parted, structure.groups[1]), branches=(), work=()
    )
    order = orders_of(structure)[group.name]
    for eighth in range(9):
        kept = np.bincount(parts[order[: 4 * eighth]], minlength=3)
        assert kept.tolist() == [eighth, 2 * eighth, eighth]
    plain = orders_of(mlp())[group.name]
    first = [unit for unit in plain if parts[unit] == 0][:2]
    assert set(first) & set(order[:8])  # the best of a part are still the best


def test_groups_without_statistics_are_ordered_by_norms():
    structure = mlp()
    scale = np.linspace(1, 9, 32, dtype=np.float32)
    weights = structure.graph.weights
    weights["fc1.weight"][:] = scale[:, None]
    weights["fc1.bias"][:] = scale
    order = unit_orders(structure, None)["fc1.width"]
    assert list(order) == list(range(31, -1, -1))
