import numpy as np
import pytest

from hwsearch.elastic.graph import Group
from hwsearch.elastic.ties import run_name, tied


def group(name, size=64, kind="inner"):
    return Group(name=name, kind=kind, size=size, slots=(), parts=np.zeros(0, np.int64))


def resnet(blocks):
    return [
        group(f"layer{stage}.{block}.conv{layer}.width", 64 * stage)
        for stage, count in enumerate(blocks, start=1)
        for block in range(count)
        for layer in (1, 2)
    ]


def runs(groups, most):
    options = {each.name: (each.size // 2, each.size) for each in groups}
    return [[each.name for each in run] for run in tied(groups, options, most)]


def test_few_groups_are_free():
    assert all(len(run) == 1 for run in runs(resnet([3, 4, 6, 3]), 32))


def test_runs_of_equal_layers_are_as_short_as_possible():
    groups = resnet([3, 4, 23, 3])  # ResNet-101: 66 inner widths
    found = runs(groups, 55)
    assert len(found) <= 55
    assert ["layer3.0.conv1.width", "layer3.1.conv1.width"] in found
    assert max(map(len, found)) == 2
    assert sorted(name for run in found for name in run) == sorted(g.name for g in groups)


def test_runs_follow_the_order_of_the_graph():
    found = runs(resnet([3, 4, 23, 3]), 55)
    assert found[0][0] == "layer1.0.conv1.width"
    assert found[1][0] == "layer1.0.conv2.width"
    assert [run[0].split(".")[0] for run in found] == sorted(run[0].split(".")[0] for run in found)


def test_layers_that_differ_are_not_tied():
    groups = [
        group(f"b.{n}.width", 64 if n % 2 else 32, "ffn" if n % 3 else "inner") for n in range(12)
    ]
    for run in runs(groups, 4):
        numbers = [int(name.split(".")[1]) for name in run]
        assert len({(n % 2, n % 3 > 0) for n in numbers}) == 1


def test_names_without_numbers_are_tied_last():
    groups = [group(f"{letter}.width") for letter in "abcdefgh"]
    assert [len(run) for run in runs(groups, 3)] == [3, 2, 3]


def test_what_cannot_be_tied_stays():
    groups = [group(f"a.{n}.width", 16 * n) for n in range(1, 9)]
    assert len(runs(groups, 3)) == 8


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["layer3.0.conv1.width", "layer3.1.conv1.width", "layer3.3.conv1.width"],
         "layer3.0-3.conv1.width"),
        (["a.0.x.width", "b.1.y.width"], "a.0.x-b.1.y.width"),
        (["d1.l1.width", "d1.l2.width"], "d1.l1-l2.width"),
        (["a.width", "a.b.width"], "a.-b.width"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_its_ends(names, expected):
    assert run_name(names) == expected
