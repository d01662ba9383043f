"""Symbolic axes, values of equal names, and outputs that depend on an order."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hwsearch.elastic.canonical.duplicates import without_duplicates
from hwsearch.elastic.reading import read_graph
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.execution import Session, run

RNG = np.random.default_rng(0)
NUMBERS = {"one": 1, "eight": 8}


def weight(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def make(nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_axes_that_must_be_equal_get_one_name():
    nodes = [
        ("Gather", ["words", "ids"], ["w"]),
        ("Gather", ["kinds", "types"], ["k"]),
        ("Add", ["w", "k"], ["s"]),
        ("MatMul", ["s", "m"], ["y"]),
    ]
    inputs = [("ids", 7, ["unk__1", "unk__2"]), ("types", 7, ["unk__3", "unk__4"])]
    weights = [weight("words", 30, 8), weight("kinds", 2, 8), weight("m", 8, 4)]
    graph = read_graph(make(nodes, inputs, [("y", 1, [None, None, 4])], weights))
    assert graph.notes == ()
    assert [dims(value) for value in graph.proto.graph.input] == [["batch", "unk__2"]] * 2
    assert dims(graph.proto.graph.output[0]) == ["batch", "unk__2", 4]


def test_axis_that_takes_one_size_is_fixed_and_noted():
    nodes = [("Add", ["x", "p"], ["s"]), ("MatMul", ["s", "m"], ["y"])]
    weights = [weight("p", 1, 16, 8), weight("m", 8, 4)]
    proto = make(nodes, [("x", 1, ["n", "length", 8])], [("y", 1, None)], weights)
    graph = read_graph(proto, {"x": (16, 8)})
    assert dims(graph.proto.graph.input[0]) == ["batch", 16, 8]
    assert graph.notes == ("axis 'length' is fixed at 16: the graph takes no other size",)


def test_sizes_that_the_model_does_not_run_with():
    nodes = [("MatMul", ["p", "x"], ["s"]), ("MatMul", ["s", "m"], ["y"])]
    weights = [weight("p", 5, 19), weight("m", 8, 4)]
    proto = make(nodes, [("x", 1, ["n", "length", 8])], [("y", 1, None)], weights)
    with pytest.raises(InputError, match="give samples of its inputs"):
        read_graph(proto)


def test_a_size_that_is_bounded_is_not_taken_for_a_constant():
    nodes = [
        ("Shape", ["x"], ["shape"]),
        ("Gather", ["shape", "one"], ["length"]),
        ("Min", ["length", "eight"], ["bounded"]),  # 8 for all lengths that are traced at first
        ("Cast", ["bounded"], ["factor"], {"to": 1}),
        ("MatMul", ["x", "m"], ["h"]),
        ("Mul", ["h", "factor"], ["y"]),
    ]
    one, eight = (numpy_helper.from_array(np.array(n, np.int64), k) for k, n in NUMBERS.items())
    proto = make(
        nodes, [("x", 1, ["n", "length", 4])], [("y", 1, None)], [weight("m", 4, 4), one, eight]
    )
    graph = read_graph(proto)
    for length in (3, 8, 40):
        x = {"x": RNG.standard_normal((2, length, 4)).astype(np.float32)}
        found = run(graph.proto, x, weights=graph.weights)["y"]
        np.testing.assert_allclose(found, run(proto, x)["y"], rtol=1e-5)


def test_a_bias_of_the_type_of_the_input_is_a_constant():
    nodes = [
        ("CastLike", ["one", "x"], ["typed"]),
        ("Expand", ["typed", "eight"], ["bias"]),
        ("Gemm", ["x", "m", "bias"], ["y"]),
    ]
    one, eight = (
        numpy_helper.from_array(np.array(n, np.int64), k) for k, n in (("one", 1), ("eight", [8]))
    )
    proto = make(nodes, [("x", 1, ["n", 4])], [("y", 1, None)], [weight("m", 4, 8), one, eight])
    graph = read_graph(proto)
    (node,) = graph.proto.graph.node
    np.testing.assert_array_equal(graph.weights[node.input[2]], np.ones(8, np.float32))


def test_samples_are_taken_where_random_inputs_fail():
    nodes = [
        ("Sub", ["ids", "thousand"], ["own"]),
        ("Gather", ["words", "own"], ["w"]),
        ("MatMul", ["w", "m"], ["y"]),
    ]
    weights = [
        weight("words", 30, 8),
        weight("m", 8, 4),
        numpy_helper.from_array(np.array(1000, np.int64), "thousand"),
    ]
    proto = make(nodes, [("ids", 7, ["n", 6])], [("y", 1, None)], weights)
    with pytest.raises(InputError, match="does not run with random inputs of shapes"):
        read_graph(proto)
    ids = 1000 + RNG.integers(0, 30, (1, 6))
    assert dims(read_graph(proto, samples={"ids": ids}).proto.graph.input[0]) == ["batch", 6]


@pytest.mark.parametrize(("factor", "notes"), [(1.0, 0), (0.0, 1)])
def test_outputs_that_no_input_moves_are_noted(factor, notes):
    nodes = [
        ("Sub", ["x", "fifty"], ["s"]),
        ("Relu", ["s"], ["r"]),  # 0 for the numbers that are tried first
        ("MatMul", ["r", "m"], ["y"]),
    ]
    fifty = numpy_helper.from_array(np.array(50, np.float32), "fifty")
    matrix = numpy_helper.from_array(factor * np.ones((8, 4), np.float32), "m")
    proto = make(nodes, [("x", 1, ["n", 8])], [("y", 1, None)], [fifty, matrix])
    found = read_graph(proto).notes
    assert len(found) == notes
    assert all(note.startswith("outputs y are the same for all inputs") for note in found)


def test_integers_stay_within_the_tables_that_they_index():
    nodes = [("Gather", ["words", "ids"], ["w"]), ("MatMul", ["w", "m"], ["y"])]
    weights = [weight("words", 3, 8), weight("m", 8, 4)]
    read_graph(make(nodes, [("ids", 7, ["n", 40])], [("y", 1, None)], weights))


def sorted_scores():
    nodes = [
        ("MatMul", ["x", "w"], ["s"]),
        ("TopK", ["s", "three"], ["values", "places"]),
        ("Identity", ["values"], ["v"]),
        ("Identity", ["places"], ["p"]),
    ]
    three = numpy_helper.from_array(np.array([3]), "three")
    outputs = [("v", 1, None), ("p", 7, None)]
    return make(nodes, [("x", 1, ["n", 4])], outputs, [weight("w", 4, 9), three])


def test_tails_with_an_order_stay():
    graph = read_graph(sorted_scores())
    assert [node.op_type for node in graph.proto.graph.node] == ["MatMul", "TopK"]
    assert [value.name for value in graph.proto.graph.output] == ["v", "p"]


def test_output_that_is_an_input_and_one_that_is_another():
    nodes = [
        ("MatMul", ["x", "w"], ["a"]),
        ("Identity", ["a"], ["b"]),
        ("Identity", ["x"], ["c"]),
        ("Identity", ["w"], ["d"]),
    ]
    outputs = [(name, 1, None) for name in "abcd"]
    proto = make(nodes, [("x", 1, ["n", 4])], outputs, [weight("w", 4, 4)])
    graph = read_graph(proto)
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    found, expected = run(graph.proto, {"x": x}, None, graph.weights), run(proto, {"x": x})
    assert list(found) == list("abcd")
    for name in "abcd":
        np.testing.assert_array_equal(found[name], expected[name])


def twice(last="Relu", reader="y"):
    nodes = [
        ("MatMul", ["x", "w"], ["y"]),
        ("Sigmoid", ["y"], ["h"]),
        (last, ["h"], ["y"]),
        *([("Relu", ["y"], ["z"])] if reader == "z" else []),
    ]
    outputs = [("y", 1, ["n", 4]), *([("z", 1, None)] if reader == "z" else [])]
    return make(nodes, [("x", 1, ["n", 4])], outputs, [weight("w", 4, 4)])


def test_output_with_the_name_of_an_inner_value():
    proto = twice()
    with pytest.raises(EvaluationError):
        Session(proto)
    graph = read_graph(proto)
    assert [node.op_type for node in graph.proto.graph.node] == ["MatMul", "Sigmoid", "Relu"]
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    w = numpy_helper.to_array(proto.graph.initializer[0])
    found = run(graph.proto, {"x": x}, ["y"], graph.weights)["y"]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(x @ w))), rtol=1e-5)


def test_ambiguous_names_are_refused():
    with pytest.raises(InputError, match="defines value 'y' 2 times"):
        read_graph(twice(reader="z"))
    assert without_duplicates(sorted_scores()).graph.node


def test_functions_are_inlined():
    function = helper.make_function(
        "mine",
        "Layer",
        ["a", "k"],
        ["b"],
        [helper.make_node("MatMul", ["a", "k"], ["m"]), helper.make_node("Relu", ["m"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        ("Layer", ["x", "w"], ["h"], {"domain": "mine"}),
        ("Layer", ["h", "w"], ["y"], {"domain": "mine"}),
    ]
    proto = make(nodes, [("x", 1, ["n", 4])], [("y", 1, ["n", 4])], [weight("w", 4, 4)])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.functions.append(function)
    graph = read_graph(proto)
    kinds = [node.op_type for node in graph.proto.graph.node]
    assert kinds == ["MatMul", "Relu", "MatMul", "Relu"]
    assert len(graph.weights) == 2


def test_any_values_are_returned_by_a_session():
    proto = sorted_scores()
    x = np.ones((2, 4), np.float32)
    found = Session(proto, ["s", "x", "v"])({"x": x})
    assert set(found) == {"s", "x", "v"}
    assert found["x"] is x
    assert found["s"].shape == (2, 9)
