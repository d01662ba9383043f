"""The registry of quantities, and that an entry in it is all that a quantity needs."""

from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import tests.run.search_parts as parts
from hwsearch import plugins, quantities
from hwsearch.accuracy.metric import TOP1, Metric
from hwsearch.errors import InputError
from hwsearch.quantities import (
    LATENCY,
    MACS,
    Quantity,
    exact_quantities,
    load_quantity,
    of_metric,
    quantity_names,
    quantity_of,
    search_quantities,
)
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.supernets.zoo import load_supernet

DENSITY = replace(
    MACS, name="density", unit="MACs/byte", exact=lambda net, archs: np.full(len(archs), 0.5)
)


@pytest.fixture
def stranger(monkeypatch):
    """A quantity of another package: an entry point, and nothing else."""
    known = plugins._registered

    def registered(group):
        found = known(group)
        if group == quantities.GROUP:
            found["density"] = EntryPoint("density", "tests.test_quantities:DENSITY", group)
        return found

    monkeypatch.setattr(plugins, "_registered", registered)
    for cached in (load_quantity, exact_quantities, quantity_names):
        cached.cache_clear()
    yield
    for cached in (load_quantity, exact_quantities, quantity_names):
        cached.cache_clear()


def test_every_registered_quantity_loads_and_is_complete():
    for name in quantity_names():
        quantity = load_quantity(name)
        assert quantity.name == name
        assert quantity.summary.endswith(".")
        assert quantity.unit
        assert quantity.context
    assert list(exact_quantities())[:3] == ["macs", "params", "bytes"]
    assert {"peak_memory", "weight_traffic"} <= set(exact_quantities())


def test_the_source_of_each():
    assert [quantity_of(n).source for n in ("latency", "top1", "macs", "mistakes")] == [
        "device", "task", "exact", "task",
    ]  # fmt: skip


def test_a_quantity_is_computed_or_measured():
    for wrong in ({"exact": None}, {"measured_by": "device"}):
        with pytest.raises(InputError, match="and not both"):
            replace(MACS, **wrong)


def test_a_metric_is_a_quantity():
    own = Metric(name="mistakes", per_sample=TOP1.per_sample, direction="min", unit="n")
    quantity = of_metric(own)
    assert (quantity.name, quantity.direction, quantity.unit) == ("mistakes", "min", "n")
    assert quantity.source == "task"
    assert list(search_quantities(own))[:2] == ["mistakes", "latency"]
    assert "top1" not in search_quantities(own)


def test_none_registered_names_the_stale_installation(monkeypatch):
    for cached in (exact_quantities, quantity_names):
        cached.cache_clear()
    monkeypatch.setattr(plugins, "_registered", lambda group: {})
    with pytest.raises(InputError, match="installation is older than the code; install hwsearch"):
        exact_quantities()
    quantity_names.cache_clear()


def test_a_strangers_quantity_is_an_objective(stranger, device):
    net = load_supernet(parts.NET)
    assert net.exact("density", net.space.sample(3, seed=0)).tolist() == [0.5] * 3
    settings = {name: parts.SETTINGS[name] for name in ("device", "data")}
    setup = prepare(
        RunConfig(
            supernet=parts.NET, objectives=("top1", "density"),
            constraints=("density <= 1",), **settings,
        )
    )  # fmt: skip
    objective = setup.objectives[1]
    assert (objective.source, objective.unit) == ("exact", "MACs/byte")


def test_what_is_registered_must_be_a_quantity_of_that_name(stranger, monkeypatch):
    monkeypatch.setattr("tests.test_quantities.DENSITY", LATENCY)
    with pytest.raises(InputError, match="'density' is registered, but what is there"):
        load_quantity("density")


@pytest.fixture
def device(monkeypatch):
    device = parts.InProcess()
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    return device


def test_a_quantity_that_is_both_wanted_and_none():
    assert isinstance(load_quantity("latency"), Quantity)
    with pytest.raises(InputError, match="unknown quantity 'latenzy'"):
        load_quantity("latenzy")
