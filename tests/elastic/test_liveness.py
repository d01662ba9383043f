import numpy as np
import onnx
from onnx import helper

from hwsearch.elastic.graph import Branch
from hwsearch.elastic.liveness import aliases, live_nodes


def parallel_branches():
    """X + attention(norm(x)) + mlp(norm(x)): the norm serves both branches."""
    nodes = [
        helper.make_node("LayerNormalization", ["x"], ["n"], name="norm"),
        helper.make_node("Tanh", ["n"], ["a"], name="attention"),
        helper.make_node("Sigmoid", ["n"], ["m"], name="mlp"),
        helper.make_node("Add", ["x", "a"], ["y"], name="add1"),
        helper.make_node("Add", ["m", "y"], ["z"], name="add2"),
    ]
    values = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])] for name in ("x", "z")
    ]
    graph = helper.make_graph(nodes, "parallel", *values)
    branches = (
        Branch(name="attention.keep", node="add1", side=1, nodes=("attention",)),
        Branch(name="mlp.keep", node="add2", side=0, nodes=("mlp",)),
    )
    return graph, branches


def test_what_two_branches_share_lives_until_both_go():
    graph, branches = parallel_branches()
    dropped = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], bool)
    live = live_nodes(graph, branches, dropped)
    assert live[:, :3].astype(int).tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_sums_in_a_row_are_replaced_by_what_is_left():
    graph, branches = parallel_branches()
    both = {"attention.keep": True, "mlp.keep": True}
    assert aliases(graph, branches, both) == {"y": "x", "z": "x"}
    assert aliases(graph, branches, {"mlp.keep": True}) == {"z": "y"}
