"""Sequences of tensors of known length become the tensors."""

import numpy as np
import pytest
from onnx import numpy_helper

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.reading import read_graph
from hwsearch.errors import InputError
from tests.elastic.canonical.test_values import make, weight
from tests.elastic.removal import difference, kept_units

INTEGERS = {"zero": 0, "one": 1, "last": -1, "six": 6, "sizes": [6, 6]}
CONSTANTS = [numpy_helper.from_array(np.array(n, np.int64), k) for k, n in INTEGERS.items()]
HEAD = [("MatMul", ["x", "v"], ["h"])]
TAIL = [("Mul", ["a", "b"], ["c"]), ("MatMul", ["c", "w"], ["y"])]


def parts(split, **attributes):
    return [
        ("SplitToSequence", ["h", *split], ["s"], {"axis": 1, **attributes}),
        ("SequenceAt", ["s", "zero"], ["a"]),
        ("SequenceAt", ["s", "last"], ["b"]),
    ]


def model(nodes, width=12, reads=6):
    weights = [weight("v", 8, width), weight("w", reads, 5), *CONSTANTS]
    return make([*HEAD, *nodes], [("x", 1, ["n", 8])], [("y", 1, ["n", 5])], weights)


@pytest.mark.parametrize("split", ["six", "sizes"])
def test_parts_of_a_split_are_elastic(split):
    structure = analyse(read_graph(model([*parts([split]), *TAIL])))
    assert [node.op_type for node in structure.graph.proto.graph.node][1] == "Split"
    (group,) = structure.groups
    assert group.size == 6
    assert difference(structure, kept_units(structure.groups)) < 1e-5


def test_parts_of_one_without_their_axis_are_stacked_again():
    nodes = [
        ("SplitToSequence", ["h"], ["s"], {"axis": 1, "keepdims": 0}),
        ("SequenceErase", ["s", "one"], ["t"]),
        ("SequenceAt", ["s", "one"], ["p"]),
        ("SequenceInsert", ["t", "p"], ["u"]),
        ("ConcatFromSequence", ["u"], ["c"], {"axis": 1, "new_axis": 1}),
        ("MatMul", ["c", "w"], ["y"]),
    ]
    read_graph(model(nodes, width=3, reads=3))  # it is compared with what was given


def test_a_sequence_that_is_made_of_tensors_is_read():
    nodes = [
        ("Relu", ["h"], ["r"]),
        ("SequenceEmpty", [], ["e"]),
        ("SequenceInsert", ["e", "r"], ["s"]),
        ("SequenceInsert", ["s", "h", "zero"], ["t"]),
        ("SequenceLength", ["t"], ["two"]),
        ("Cast", ["two"], ["number"], {"to": 1}),
        ("SequenceConstruct", ["r", "h"], ["u"]),
        ("ConcatFromSequence", ["u"], ["j"], {"axis": 1}),
        ("SequenceAt", ["t", "zero"], ["a"]),
        ("MatMul", ["j", "w"], ["k"]),
        ("Mul", ["k", "number"], ["y"]),
    ]
    structure = analyse(read_graph(model(nodes, reads=24)))
    assert [group.size for group in structure.groups] == [12]
    assert difference(structure, kept_units(structure.groups)) < 1e-5


def test_a_sequence_of_unknown_length_is_refused():
    nodes = [
        ("ReduceMax", ["h"], ["top"], {"keepdims": 0}),
        ("Cast", ["top"], ["whole"], {"to": 7}),
        ("Mul", ["whole", "zero"], ["nothing"]),
        ("Add", ["nothing", "six"], ["number"]),
    ]
    with pytest.raises(InputError, match=r"sequences of tensors: 1 SplitToSequence \("):
        read_graph(model([*nodes, *parts(["number"]), *TAIL]))
