"""Scatters of consecutive rows are followed."""

import numpy as np
import pytest
from onnx import numpy_helper

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.reading import read_graph
from tests.elastic.canonical.test_values import make, weight
from tests.elastic.removal import difference, kept_units


def in_place(rows, updates=5):
    """Return ``h[:, rows] = g`` as PyTorch's newer exporter writes it."""
    nodes = [
        ("MatMul", ["x", "v"], ["h"]),
        ("MatMul", ["x", "u"], ["g"]),
        ("Transpose", ["h"], ["t"]),
        ("Transpose", ["g"], ["s"]),
        ("ScatterND", ["t", "rows", "s"], ["c"]),
        ("Transpose", ["c"], ["d"]),
        ("MatMul", ["d", "w"], ["y"]),
    ]
    indices = numpy_helper.from_array(np.array(rows, np.int64)[:, None], "rows")
    weights = [weight("v", 8, 12), weight("u", 8, updates), weight("w", 12, 3), indices]
    return make(nodes, [("x", 1, ["n", 8])], [("y", 1, ["n", 3])], weights)


@pytest.mark.parametrize("first", [0, 3, 7])
def test_rows_of_a_range_are_elastic(first):
    structure = analyse(read_graph(in_place(range(first, first + 5))))
    assert sorted(group.size for group in structure.groups) == [5, 7]
    assert difference(structure, kept_units(structure.groups)) < 1e-5


def test_all_rows_are_the_updates():
    structure = analyse(read_graph(in_place(range(12), updates=12)))
    assert [group.size for group in structure.groups] == [12]
    assert difference(structure, kept_units(structure.groups)) < 1e-5


def test_other_rows_stay():
    assert analyse(read_graph(in_place([4, 3, 2, 1, 0]))).groups == ()


def test_all_samples_are_the_updates():
    nodes = [
        ("MatMul", ["x", "v"], ["h"]),
        ("Relu", ["h"], ["g"]),
        ("Shape", ["h"], ["shape"]),
        ("Gather", ["shape", "zero"], ["number"]),
        ("Range", ["zero", "number", "one"], ["range"]),
        ("Unsqueeze", ["range", "axis"], ["rows"]),
        ("ScatterND", ["h", "rows", "g"], ["c"]),
        ("MatMul", ["c", "w"], ["y"]),
    ]
    numbers = {"zero": 0, "one": 1, "axis": [-1]}
    constants = [numpy_helper.from_array(np.array(n, np.int64), k) for k, n in numbers.items()]
    weights = [weight("v", 8, 12), weight("w", 12, 3), *constants]
    structure = analyse(read_graph(make(nodes, [("x", 1, ["n", 8])], [("y", 1, None)], weights)))
    assert [group.size for group in structure.groups] == [12]
    assert "ScatterND" not in {node.op_type for node in structure.graph.proto.graph.node}
