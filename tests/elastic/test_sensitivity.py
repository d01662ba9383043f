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

COUNT = 256


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
    runs = len(structure.groups) + len(found)  # two for each group
    assert calls == [(n, runs) for n in range(runs)]
    assert found["block.keep"][1] == 0
    lost = share_lost(structure, repair, batches, {}, ["block.keep"])
    assert found["block.keep"][0] == pytest.approx(lost, rel=1e-3)
    for group in structure.groups:
        curve = found[group.name]
        assert curve.shape == (group.size + 1,)
        assert curve[-1] == 0
        counts = list(elastic.space.choices[elastic.space.names.index(group.name)].options)
        few, many = (min(counts, key=lambda n: abs(n / group.size - f)) for f in (1 / 4, 3 / 4))
        for count in (few, many):
            kept = {group.name: kept_units(group, orders[group.name], count)}
            lost = share_lost(structure, repair, batches, kept)
            assert curve[count] == pytest.approx(lost, rel=1e-3)
        residuals = sum(repair.residuals(group.name).values())
        ratios = np.log(curve[:-1] / residuals[:-1])
        np.testing.assert_allclose(ratios[:few], ratios[few])
        np.testing.assert_allclose(ratios[many:], ratios[many])
        middle = (few + many) // 2
        share = (middle - few) / (many - few)
        wanted = (1 - share) * ratios[few] + share * ratios[many]
        assert ratios[middle] == pytest.approx(wanted, rel=1e-6)


def test_a_group_that_no_layer_reads_loses_with_the_square(monkeypatch):
    structure, elastic, orders, repair, batches = parts("residual_cnn")
    monkeypatch.setattr(Repair, "residuals", lambda self, name: {})
    found = losses_of(structure, elastic, orders, repair, batches, lambda *_: None)
    curve = found["down.width"]
    ratios = curve[:-1] / np.linspace(1, 0, len(curve))[:-1] ** 2
    np.testing.assert_allclose(ratios[:8], ratios[0])  # up to a quarter of the units
    np.testing.assert_allclose(ratios[24:], ratios[-1])


def test_outputs_that_tell_nothing_leave_losses_unknown(monkeypatch):
    structure, elastic, orders, repair, batches = parts("mlp")
    monkeypatch.setattr(
        "hwsearch.elastic.sensitivity.Session.__call__",
        lambda self, inputs: {"chosen": np.zeros(len(next(iter(inputs.values()))), np.int64)},
    )
    assert losses_of(structure, elastic, orders, repair, batches, lambda *_: None) == {}
