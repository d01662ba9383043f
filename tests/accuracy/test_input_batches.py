"""Inputs of samples for calibration."""

import numpy as np

from hwsearch.accuracy.input_batches import InputBatches
from hwsearch.accuracy.task import Samples
from hwsearch.supernets.interface import InputSpec, TensorSpec

SPEC = InputSpec(inputs=(TensorSpec(name="x", shape=(2,)),), outputs=("y",))


def arrays(n=10):
    return Samples({"x": np.arange(2.0 * n).reshape(n, 2)}, np.arange(n), {})


def test_each_iteration_reads_them():
    batches = InputBatches(arrays(), 4, SPEC)
    for _ in range(2):
        assert [len(fed["x"]) for fed in batches] == [4, 4, 2]


def test_the_most_are_spread():
    batches = InputBatches(arrays(), 3, SPEC, most=4)
    assert [fed["x"][:, 0].tolist() for fed in batches] == [[0, 6, 12], [18]]


def test_of_no_samples_there_are_no_batches():
    assert list(InputBatches(None, 3, SPEC)) == []


def test_other_samples_or_others_of_them_have_another_digest():
    given = [
        InputBatches(arrays(), 4, SPEC),
        InputBatches(arrays(9), 4, SPEC),
        InputBatches(arrays(), 4, SPEC, most=5),
        InputBatches(None, 4, SPEC),
    ]
    assert len({batches.digest for batches in given}) == 4
    assert InputBatches(arrays(), 4, SPEC).digest == given[0].digest
