from dataclasses import replace

import pytest

from hwsearch.elastic.graph import Rest
from hwsearch.elastic.summary import summary_of
from tests.elastic.small_models import residual_cnn


def test_shares_are_of_the_macs_that_groups_take_part_in():
    structure = residual_cnn()
    found = summary_of(structure)
    macs = {work.node: work.macs for work in structure.work}
    assert found.macs == sum(macs.values())
    assert found.elastic == 1.0
    assert (found.kinds["residual"].count, found.kinds["inner"].count) == (1, 2)
    assert found.kinds["residual"].macs == pytest.approx(1 - macs["head"] / found.macs)
    inside = macs["block.conv1"] + macs["block.conv2"]
    assert found.branches.count == 1
    assert found.branches.macs == pytest.approx(inside / found.macs)


def test_what_is_not_exact_or_left_alone_is_said():
    structure = residual_cnn()
    stem, *others = structure.groups
    rest = tuple(Rest(what=f"node{n}", reason="custom operator", macs=n) for n in range(12))
    graph = replace(structure.graph, notes=("axis 'length' is fixed at 16",))
    changed = replace(
        structure, graph=graph, groups=(replace(stem, exact=False), *others), rest=rest
    )
    found = summary_of(changed)
    lines = "\n".join(found.lines())
    assert "1 group kept whole by default" in lines
    assert "of the MACs: channels at node11: custom operator" in lines
    assert "left whole: channels at 4 places more" in lines
    assert lines.endswith("axis 'length' is fixed at 16")
    assert found.to_dict()["rest"][0] == ["node11", "custom operator", 11]
