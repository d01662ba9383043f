"""Groups, branches and MACs of miniature networks; removal equals zeros in what reads it."""

from functools import cache

import numpy as np
import pytest

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.summary import summary_of
from hwsearch.models.agreement import count_macs
from tests.elastic.miniature_networks import NETWORKS, miniature
from tests.elastic.removal import (
    difference,
    effect,
    kept_units,
    macs_after,
    plain_graph,
    sliced,
    with_weights,
)

# Share of MACs that shrink with a group, and the kinds of groups.
EXPECTED = {
    "residual": (1.0, {"inner", "residual"}),
    "inverted residual": (1.0, {"inner", "residual"}),
    "dense": (1.0, {"inner"}),
    "shuffle": (1.0, {"inner"}),
    "inception": (1.0, {"inner"}),
    "grouped": (1.0, {"inner"}),
    "pre-norm": (0.86, {"heads", "ffn"}),
    "post-norm": (0.95, {"heads", "ffn"}),
    "channels last": (0.58, {"ffn"}),
    "u-net": (1.0, {"inner"}),
}


@cache
def structure(name):
    return analyse(plain_graph(miniature(name)))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_slices_equal_zeros(name, seed):
    found = structure(name)
    kept = kept_units(found.groups, 0.5, seed)
    assert difference(found, kept) < 1e-5
    assert effect(found, kept) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_each_group_alone(name):
    found = structure(name)
    for group in found.groups:
        kept = {each.name: np.ones(each.size, bool) for each in found.groups}
        kept[group.name][::2] = False
        assert difference(found, kept) < 1e-5, group.name


@pytest.mark.parametrize("name", NETWORKS)
def test_work_is_what_is_counted(name):
    found = structure(name)
    whole = with_weights(found.graph, found.graph.weights)
    assert sum(each.macs for each in found.work) == count_macs(whole)
    kept = kept_units(found.groups)
    assert macs_after(found, kept) == count_macs(sliced(found, kept))


@pytest.mark.parametrize("name", NETWORKS)
def test_share_and_kinds(name):
    found = structure(name)
    share, kinds = EXPECTED[name]
    assert summary_of(found).elastic >= share - 1e-9, found.rest
    assert {group.kind for group in found.groups} == kinds


@pytest.mark.parametrize("name", NETWORKS)
def test_positions_are_disjoint_and_complete(name):
    found = structure(name)
    seen = {}
    for group in found.groups:
        assert group.exact
        assert group.parts.shape == (group.size,)
        for slot in group.slots:
            assert len(slot.positions) == group.size
            taken = seen.setdefault((slot.weight, slot.axis), set())
            flat = slot.positions.reshape(-1).tolist()
            assert not taken & set(flat)
            assert len(set(flat)) == len(flat)
            taken |= set(flat)


def test_names_are_unique_and_printable():
    for name in NETWORKS:
        found = structure(name)
        names = [each.name for each in (*found.groups, *found.branches)]
        assert len(set(names)) == len(names)
        assert not [each for each in names if set(each) & set("=, ")]
