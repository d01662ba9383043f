"""A latency survives its way through a kit's file, and damaged ones are refused."""

import numpy as np
import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice

from hwsearch.errors import InputError
from hwsearch.kit.results import KitFacts, _latency, latency_record


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x" * 100)
    return latency_record(FakeDevice().measure({"m": path}, seed=0)["m"])


def test_which_rounds_count_is_kept(record):
    n_rounds = len(record["ratios"])
    counted = [number % 3 > 0 for number in range(n_rounds)]
    latency = _latency({**record, "counted": counted}, "table.json")
    np.testing.assert_array_equal(latency.counted, counted)
    assert latency_record(latency)["counted"] == counted
    assert _latency(record, "table.json").counted is None


@pytest.mark.parametrize("damaged", ["yes", [True], [1] * 16, [None] * 16])
def test_which_rounds_count_is_checked(record, damaged):
    with pytest.raises(InputError, match=r"table\.json: counted is not a truth value"):
        _latency({**record, "counted": damaged}, "table.json")


DAMAGES = [
    {"ratios": None},
    {"ratios": ["a"]},
    {"ratios": [[1.0], [1.0, 2.0]]},
    {"ratios": [10**400]},
    {"ratio": "1.0"},
    {"latency_ms": None},
    {"baseline_ms": []},
    {"warnings": None},
]


@pytest.mark.parametrize("damage", [None, *DAMAGES], ids=str)
def test_values_of_another_kind_are_refused(record, damage):
    latencies = {"m": None if damage is None else {**record, **damage}}
    facts = KitFacts(digest="", purpose="table", run="", command="", total=1, latencies=latencies)
    with pytest.raises(InputError, match=r"table\.json, model m: "):
        facts.latency("m", "table.json")
