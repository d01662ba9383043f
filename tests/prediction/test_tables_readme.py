"""The example in latency_tables/README.md runs as it is, once there is a table."""

import re
from pathlib import Path

import hwsearch
from hwsearch.chains import ChainIndex
from hwsearch.tables import FOLDER, BlockLatency, LatencyTable, file_name

README = Path(__file__).parents[2] / "latency_tables" / "README.md"


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path))
    net = hwsearch.load_supernet("cifar10-resnet")
    index = ChainIndex(net.space, net.blocks)
    LatencyTable(
        supernet=net.card.name,
        space=net.full_space.digest,
        device="ort-cpu:threads=1",
        slug="ort-cpu-threads1",
        fingerprint={"cpu": "any"},
        created="2026-01-31",
        baseline_ms=1.0,
        blocks={
            spec: BlockLatency(latency_ms=0.01 + macs / 1e8)
            for spec, macs in zip(index.specs, index.macs.tolist(), strict=True)
        },
    ).save(tmp_path / FOLDER / file_name("cifar10-resnet", "ort-cpu-threads1"))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict = {}
    exec(compile(code, "README", "exec"), namespace)
    assert namespace["latencies_ms"].shape == namespace["deviations_ms"].shape == (1000,)
    assert (namespace["deviations_ms"] > 0).all()
