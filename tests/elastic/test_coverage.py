"""Published architectures: what is elastic of them, and whether subnets are exact (slow)."""

import check_coverage
import numpy as np
import pytest

from hwsearch.elastic.graph import Group

CASES = [
    pytest.param(name, exporter, id=f"{name}-{exporter}")
    for name in check_coverage.available()
    for exporter in ("torchscript", "dynamo")
]


def test_every_part_of_a_group_keeps_the_same_share():
    parts = np.repeat([0, 1, 2], [4, 8, 2])
    group = Group(name="width", kind="inner", size=14, slots=(), parts=parts)
    (mask,) = check_coverage.halved(_Structure((group,))).values()
    assert np.bincount(parts, weights=mask).tolist() == [2, 4, 1]


def test_a_row_passes_if_it_is_exact_and_elastic_enough():
    row = {"model": "torchvision:swin_t", "exporter": "dynamo", "groups": (3, 1)}
    assert check_coverage.Row(**row, elastic=0.93, difference=1e-6).passed
    assert not check_coverage.Row(**row, elastic=0.9, difference=1e-6).passed
    assert not check_coverage.Row(**row, elastic=0.93, difference=1e-4).passed
    assert not check_coverage.Row(**row, error="it cannot be read").passed


class _Structure:
    def __init__(self, groups):
        self.groups = groups


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "exporter"), CASES)
def test_subnets_of_published_architectures_are_exact(name, exporter, capsys):
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
    row = check_coverage.check(name, exporter)
    with capsys.disabled():
        print("\n" + "\n".join(check_coverage.table([row])).splitlines()[-1])  # noqa: T201
    assert not row.error
    assert row.difference <= check_coverage.TOLERANCE or not row.groups[0]
    if exporter == "torchscript":
        assert row.elastic >= check_coverage.MODELS[name] - 5e-3
