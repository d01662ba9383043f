"""Published architectures: what is elastic of them, and whether subnets are exact (slow)."""

import check_coverage
import pytest

CASES = [
    pytest.param(name, exporter, id=f"{name}-{exporter}")
    for name in check_coverage.available()
    for exporter in ("torchscript", "dynamo")
]


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
