import numpy as np
import pytest

from hwsearch.elastic.build import sliced
from hwsearch.elastic.repair.order import unit_orders
from hwsearch.elastic.repair.reference import Reference
from hwsearch.elastic.repair.repairs import Repair
from hwsearch.elastic.repair.sequential import _Sequential, sequential
from hwsearch.elastic.repair.statistics import gather
from hwsearch.models.execution import run
from tests.elastic.small_models import (
    MODELS,
    full_model,
    mlp,
    mobile_cnn,
    residual_cnn,
    samples,
    transformer,
)


def repaired(structure, share, count=300):
    inputs = samples(structure, count)
    statistics = gather(structure, [inputs])
    orders = unit_orders(structure, statistics)
    kept = {}
    for group in structure.groups:
        kept[group.name] = np.zeros(group.size, bool)
        kept[group.name][orders[group.name][: max(1, int(share * group.size))]] = True
    return inputs, kept, Repair(structure, statistics, orders).weights(kept)


def loss(structure, kept, dropped, replaced, seed=9):
    fresh = samples(structure, 200, seed=seed)
    model = sliced(structure, kept, dropped, replaced)
    ours = next(iter(run(model, fresh).values()))
    whole = next(iter(run(full_model(structure.graph), fresh).values()))
    return np.square(ours - whole).sum() / np.square(whole - whole.mean(axis=0)).sum()


@pytest.mark.parametrize("name", MODELS)
def test_it_comes_nearer_than_one_solution_for_each_layer(name):
    structure = MODELS[name]()
    inputs, kept, once = repaired(structure, 0.5)
    found = sequential(structure, kept, (), once, Reference(structure.graph, [inputs]))
    assert loss(structure, kept, (), found) < 1.02 * loss(structure, kept, (), once)
    assert loss(structure, kept, (), once) < loss(structure, kept, (), {})


@pytest.mark.parametrize("make", [residual_cnn, mobile_cnn, transformer])
def test_what_a_dropped_branch_added_is_made_up_for(make):
    structure = make()
    inputs = samples(structure, 300)
    dropped = [structure.branches[0].name]
    found = sequential(
        structure,
        {},
        dropped,
        {},
        Reference(structure.graph, [inputs]),
    )
    if make is transformer:  # nothing but a norm follows
        assert not found
        return
    assert loss(structure, {}, dropped, found) < 0.95 * loss(structure, {}, dropped, {})


@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes_where_nothing_was_removed(name):
    structure = MODELS[name]()
    assert not sequential(
        structure, {}, (), {}, Reference(structure.graph, [samples(structure, 40)])
    )


def test_shapes_are_those_that_slicing_takes():
    structure = residual_cnn()
    inputs, kept, once = repaired(structure, 0.5)
    found = sequential(structure, kept, (), once, Reference(structure.graph, [inputs]))
    weights = structure.graph.weights
    assert found["block.conv1.weight"].shape == (24, 8, 3, 3)
    assert found["head.weight"].shape == (10, 16)
    assert found["stem.weight"].shape == weights["stem.weight"].shape
    removed = ~kept["block.width"]
    np.testing.assert_array_equal(
        found["block.conv1.bias"][removed], weights["block.conv1.bias"][removed]
    )


def test_batch_norms_follow_what_they_read():
    structure = mobile_cnn()
    inputs = samples(structure, 300)
    found = sequential(
        structure,
        {},
        ["block.keep"],
        {},
        Reference(structure.graph, [inputs]),
    )
    model = sliced(structure, {}, ["block.keep"], found)
    ours = run(model, inputs, ["side.relu"])["side.relu"]
    graph = structure.graph
    whole = run(graph.proto, inputs, ["side.relu"], graph.weights)["side.relu"]
    moved = graph.weights["norm.mean"] + ours.mean(axis=(0, 2, 3)) - whole.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(found["norm.mean"], moved, atol=1e-4)
    ratio = np.clip(ours.var(axis=(0, 2, 3)) / whole.var(axis=(0, 2, 3)), 0.04, 25)
    np.testing.assert_allclose(found["norm.var"], graph.weights["norm.var"] * ratio, rtol=1e-3)


def test_few_samples_do_no_harm():
    structure = mlp()
    inputs, kept, once = repaired(structure, 0.6)
    few = {name: x[:8] for name, x in inputs.items()}
    found = sequential(structure, kept, (), once, Reference(structure.graph, [few]))
    assert loss(structure, kept, (), found) < 1.2 * loss(structure, kept, (), once)


def test_it_is_the_same_each_time():
    structure = transformer()
    inputs, kept, once = repaired(structure, 0.5, count=64)
    reference = Reference(structure.graph, [inputs])
    sequential(structure, {}, [structure.branches[0].name], {}, reference)
    first = sequential(structure, kept, (), once, reference)  # of which a subnet leaves no trace
    second = sequential(structure, kept, (), once, Reference(structure.graph, [inputs]))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_layers_that_read_the_same_are_solved_as_if_alone(monkeypatch):
    structure = transformer()
    inputs, kept, once = repaired(structure, 0.5, count=64)
    reference = Reference(structure.graph, [inputs])
    together = sequential(structure, kept, (), once, reference)
    monkeypatch.setattr(_Sequential, "_alike", lambda self, first, layers: [first])
    alone = sequential(structure, kept, (), once, reference)
    for name, array in together.items():
        np.testing.assert_allclose(array, alone[name], atol=1e-5)
