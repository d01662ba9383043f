"""Peak memory and weight traffic, against graphs counted by hand and against whole models."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwsearch.errors import EvaluationError
from hwsearch.models.export import to_onnx
from hwsearch.models.memory import live_bytes, peak_memory, weight_traffic
from hwsearch.supernets.cifar10_resnet import FAMILY
from hwsearch.supernets.zoo import load_supernet


def graph(nodes, shape=("batch", 4), outputs=("y",), weights=(), kind=TensorProto.FLOAT):
    """Return a model with an input ``x``, its batch dynamic."""
    made = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "by hand",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def test_a_chain_holds_the_input_and_the_output_of_a_node():
    model = graph([("Relu", ["x"], ["a"]), ("Sigmoid", ["a"], ["y"])])
    assert live_bytes(model) == [32, 32]  # two values of 4 numbers of 4 bytes
    assert peak_memory(model) == 32
    assert peak_memory(model, batch=3) == 96


def test_both_branches_of_a_residual_are_live():
    nodes = [
        ("Relu", ["x"], ["a"]),
        ("Sigmoid", ["a"], ["b"]),
        ("Tanh", ["b"], ["c"]),
        ("Add", ["c", "x"], ["y"]),
    ]
    assert live_bytes(graph(nodes)) == [32, 48, 48, 48]


def test_nothing_is_written_over_its_input():
    assert live_bytes(graph([("Relu", ["x"], ["y"])])) == [32]


def test_a_view_shares_the_memory_of_its_input():
    shape = np.array([-1, 2, 2], np.int64)
    nodes = [
        ("Relu", ["x"], ["a"]),
        ("Reshape", ["a", "shape"], ["b"]),
        ("Sigmoid", ["b"], ["y"]),
    ]
    model = graph(nodes, weights=[("shape", shape)])
    assert live_bytes(model) == [32, 16, 32]
    kept = graph([*nodes[:2], ("Sigmoid", ["b"], ["c"]), ("Relu", ["c"], ["y"])],
                 outputs=("y", "b"), weights=[("shape", shape)])  # fmt: skip
    assert live_bytes(kept) == [32, 16, 32, 48]  # the view keeps its memory to the end


def test_an_output_is_live_to_the_end_and_an_unread_one_at_its_node():
    nodes = [
        ("Split", ["x"], ["a", "unread"], {"axis": 1}),
        ("Relu", ["a"], ["y"]),
        ("Relu", ["y"], ["z"]),
        ("Relu", ["z"], ["last"]),
    ]
    model = graph(nodes, outputs=("y", "last"))
    assert live_bytes(model) == [32, 16, 16, 24]


def test_weights_are_no_activations_and_are_read_once():
    weight, unused = np.ones((4, 8), np.float32), np.ones(100, np.float32)
    constant = helper.make_tensor("value", TensorProto.FLOAT, [8], np.ones(8, np.float32))
    nodes = [
        ("Constant", [], ["c"], {"value": constant}),
        ("MatMul", ["x", "w"], ["a"]),
        ("Add", ["a", "c"], ["b"]),
        ("MatMul", ["x", "w"], ["d"]),
        ("Add", ["b", "d"], ["y"]),
    ]
    model = graph(nodes, weights=[("w", weight), ("unused", unused)])
    assert live_bytes(model) == [16, 48, 80, 80, 96]
    assert weight_traffic(model) == 4 * 32


def test_bytes_are_those_of_the_type():
    model = graph([("Relu", ["x"], ["y"])], kind=TensorProto.FLOAT16)
    assert peak_memory(model) == 16


def test_what_a_subgraph_captures_is_read():
    def branch(name):
        out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        return helper.make_graph([helper.make_node("Relu", ["a"], [name])], name, [], out)

    flag = np.array(True)
    nodes = [
        ("Relu", ["x"], ["a"]),
        ("Relu", ["x"], ["b"]),
        ("If", ["flag"], ["c"], {"then_branch": branch("t"), "else_branch": branch("e")}),
        ("Add", ["b", "c"], ["y"]),
    ]
    assert live_bytes(graph(nodes, weights=[("flag", flag)]))[1] == 48


def test_a_shape_that_is_not_known_is_an_error():
    nodes = [("NonZero", ["x"], ["a"]), ("Cast", ["a"], ["y"], {"to": TensorProto.FLOAT})]
    with pytest.raises(EvaluationError, match="memory of 'a' is not known"):
        peak_memory(graph(nodes))


@pytest.fixture(scope="module")
def net():
    return load_supernet("tests.models.test_memory:miniature")


def miniature(checkpoint=None):
    return FAMILY.tiny()


def test_blocks_give_what_the_whole_models_give(net):
    """Many architectures are looked up block by block, few are built."""
    few = net.space.sample(12, seed=3)
    models = [to_onnx(net, arch) for arch in few]
    whole = {
        "peak_memory": [peak_memory(model) for model in models],
        "weight_traffic": [weight_traffic(model) for model in models],
    }
    many = few.concatenate([few, net.space.sample(400, seed=1)])
    for name, expected in whole.items():
        assert net.exact(name, few).tolist() == expected
        looked_up = load_supernet("tests.models.test_memory:miniature").exact(name, many)
        assert looked_up[:12].tolist() == expected


def test_many_are_computed_from_one_model_for_each_block(monkeypatch):
    net, built = load_supernet("tests.models.test_memory:miniature"), []

    def counted(*args):
        built.append(args)
        return to_onnx(*args)

    monkeypatch.setattr("hwsearch.models.memory.to_onnx", counted)
    archs = net.space.sample(1000, seed=0)
    first = net.exact("peak_memory", archs)
    assert len(built) < len(archs.unique())
    n_built = len(built)
    assert net.exact("peak_memory", archs).tolist() == first.tolist()
    net.exact("weight_traffic", archs)
    assert len(built) == n_built
    assert net.exact("peak_memory", archs[:0]).shape == (0,)


def test_a_part_of_a_space_is_looked_up_in_the_index_of_the_whole():
    whole = load_supernet("tests.models.test_memory:miniature")
    wide = whole.restrict(freeze=["stage2.width=16"])
    wide.exact("macs", wide.space.sample(300, seed=0))
    part = wide.restrict(freeze=["stage1.width=8"])
    archs = part.space.sample(300, seed=1)
    found = part.exact("peak_memory", archs)
    assert [found[i] for i in range(5)] == [peak_memory(to_onnx(part, archs[i])) for i in range(5)]
