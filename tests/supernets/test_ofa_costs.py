"""Exact costs equal those that others recorded for ImageNet evaluations."""

import csv
from pathlib import Path

import numpy as np
import pytest

from hwsearch import load_supernet

RECORDED = Path(__file__).parents[3] / "shared" / "bench" / "ofa_mbv3_w10_imagenet.csv"


@pytest.mark.skipif(
    not RECORDED.is_file(), reason=f"the recorded evaluations are not at {RECORDED}"
)
def test_macs_and_parameters_of_every_recorded_evaluation():
    with RECORDED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2373
    net = load_supernet("ofa-mbv3-w1.0", "random:0")
    archs = net.space.from_ofa([{word: row[word] for word in ("ks", "e", "d")} for row in rows])
    np.testing.assert_array_equal(net.exact("macs", archs), [int(row["macs"]) for row in rows])
    np.testing.assert_array_equal(net.exact("params", archs), [int(r["params"]) for r in rows])
