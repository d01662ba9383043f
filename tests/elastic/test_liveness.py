import numpy as np
import onnx
import pytest
from onnx import helper

from hwsearch.elastic.analysis.liveness import aliases, check_dropped, live_nodes, removables
from hwsearch.elastic.graph import Branch, Graph, RepeatedLayer, Structure
from hwsearch.errors import InputError


def parallel_branches():
    """Return x + attention(norm(x)) + mlp(norm(x)): a layer whose norm serves both branches."""
    nodes = [
        helper.make_node("LayerNormalization", ["x"], ["n"], name="norm"),
        helper.make_node("Tanh", ["n"], ["a"], name="attention"),
        helper.make_node("Sigmoid", ["n"], ["m"], name="mlp"),
        helper.make_node("Add", ["x", "a"], ["y"], name="add1"),
        helper.make_node("Add", ["m", "y"], ["z"], name="add2"),
        helper.make_node("Relu", ["z"], ["out"], name="last"),
    ]
    values = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])] for name in ("x", "out")
    ]
    proto = helper.make_model(helper.make_graph(nodes, "parallel", *values))
    branches = (
        Branch(name="attention.keep", node="add1", side=1, nodes=("attention",)),
        Branch(name="mlp.keep", node="add2", side=0, nodes=("mlp",)),
    )
    inside = tuple(node.name for node in nodes[:5])
    layer = RepeatedLayer(name="layer.keep", input="x", output="z", nodes=inside)
    graph = Graph(proto=proto, weights={}, origins={}, shapes={}, digest="0" * 64)
    return Structure(graph=graph, groups=(), branches=branches, work=(), layers=(layer,))


def test_what_two_branches_share_lives_until_both_go():
    structure = parallel_branches()
    parts = removables(structure)
    assert [part.name for part in parts] == ["layer.keep", "attention.keep", "mlp.keep"]
    dropped = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1]], bool)
    live = live_nodes(structure.graph.proto.graph, parts, dropped).astype(int)
    assert live[:, :3].tolist() == [
        [1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]
    ]  # fmt: skip
    assert live[:, 3:].tolist() == [
        [1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]
    ]  # fmt: skip


def test_sums_in_a_row_are_replaced_by_what_is_left():
    parts = removables(parallel_branches())
    assert aliases(parts, {"attention.keep", "mlp.keep"}) == {"y": "x", "z": "x"}
    assert aliases(parts, {"mlp.keep"}) == {"z": "y"}
    assert aliases(parts, {"mlp.keep", "layer.keep"}) == {"z": "x"}


def test_unknown_parts_are_refused():
    parts = removables(parallel_branches())
    check_dropped(parts, {"layer.keep", "mlp.keep"})
    with pytest.raises(InputError, match=r"unknown branch 'mlp.kep'.*Did you mean"):
        check_dropped(parts, {"mlp.kep"})
