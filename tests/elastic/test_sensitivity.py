import numpy as np
import pytest

from hwsearch.elastic.build import sliced
from hwsearch.elastic.network import kept_units
from hwsearch.elastic.proposal import propose
from hwsearch.elastic.repair.order import unit_orders
from hwsearch.elastic.repair.repairs import Repair
from hwsearch.elastic.repair.statistics import gather
from hwsearch.elastic.sensitivity import losses_of
from tests.elastic.small_models import MODELS, samples
from tests.elastic.test_slicing import run

COUNT = 128


def parts(name):
    structure = MODELS[name]()
    batches = [samples(structure, COUNT)]
    statistics = gather(structure, batches)
    orders = unit_orders(structure, statistics)
    return structure, propose(structure), orders, Repair(structure, statistics, orders), batches


def share_lost(structure, repair, batches, kept, dropped=()):
    inputs = {name: array[np.arange(64) * COUNT // 64] for name, array in batches[0].items()}
    whole = run(sliced(structure, {}), inputs)
    cut = run(sliced(structure, kept, dropped, repair.weights(kept)), inputs)
    return np.mean(
        [
            np.square(new - old).sum() / np.square(old - old.mean(axis=0)).sum()
            for old, new in zip(whole, cut, strict=True)
        ]
    )


def test_losses_are_those_of_the_outputs():
    structure, elastic, orders, repair, batches = parts("residual_cnn")
    calls = []
    found = losses_of(
        structure,
        elastic,
        orders,
        repair,
        batches,
        lambda done, total: calls.append((done, total)),
    )
    assert set(found) == {c.name for c in elastic.space.choices}
    assert calls == [(n, len(found)) for n in range(len(found))]
    assert found["block.keep"][1] == 0
    lost = share_lost(structure, repair, batches, {}, ["block.keep"])
    assert found["block.keep"][0] == pytest.approx(lost, rel=1e-3)
    for group in structure.groups:
        curve = found[group.name]
        assert curve.shape == (group.size + 1,)
        assert curve[-1] == 0
        counts = list(elastic.space.choices[elastic.space.names.index(group.name)].options)
        half = min(counts, key=lambda n: abs(2 * n - group.size))
        kept = {group.name: kept_units(group, orders[group.name], half)}
        assert curve[half] == pytest.approx(share_lost(structure, repair, batches, kept), rel=1e-3)
        residuals = sum(repair.residuals(group.name).values())
        np.testing.assert_allclose(curve / curve[half], residuals / residuals[half])


def test_a_group_that_no_layer_reads_loses_with_the_square(monkeypatch):
    structure, elastic, orders, repair, batches = parts("residual_cnn")
    monkeypatch.setattr(Repair, "residuals", lambda self, name: {})
    found = losses_of(structure, elastic, orders, repair, batches, lambda *_: None)
    curve = found["down.width"]
    np.testing.assert_allclose(curve / curve[0], np.linspace(1, 0, len(curve)) ** 2)


def test_outputs_that_tell_nothing_leave_losses_unknown(monkeypatch):
    structure, elastic, orders, repair, batches = parts("mlp")
    monkeypatch.setattr(
        "hwsearch.elastic.sensitivity.Session.__call__",
        lambda self, inputs: {"chosen": np.zeros(len(next(iter(inputs.values()))), np.int64)},
    )
    assert losses_of(structure, elastic, orders, repair, batches, lambda *_: None) == {}
