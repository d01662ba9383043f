"""A batch that an export has fixed becomes symbolic where the graph allows it."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hwsearch.elastic.canonical.batch import resolved
from hwsearch.elastic.reading import read_graph
from hwsearch.errors import InputError
from hwsearch.models.execution import Session

RNG = np.random.default_rng(0)


def model(nodes, x, y, **weights):
    tensors = []
    for name, array in weights.items():
        each = np.asarray(array)
        each = each.astype(np.float32) if each.dtype == np.float64 else each
        tensors.append(numpy_helper.from_array(each, name))
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "graph",
        [helper.make_tensor_value_info("x", 1, x)],
        [helper.make_tensor_value_info("y", 1, y)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def assert_freed(proto, batch=1):
    """A batch of several samples gives what the given model gives for each."""
    graph = read_graph(proto)
    assert graph.notes == ()
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    samples = [RNG.standard_normal(shape).astype(np.float32) for _ in range(3)]
    given, session = Session(proto), Session(graph.proto, weights=graph.weights)
    found = session({"x": np.concatenate(samples)})["y"]
    expected = np.concatenate([given({"x": each})["y"] for each in samples])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.shape[0] == 3 * batch
    return graph


def matrix(*shape):
    return RNG.standard_normal(shape)


@pytest.mark.parametrize("target", [[1, -1], [1, 48], [-1, 48], [0, -1]])
def test_flattening(target):
    nodes = [("Reshape", ["x", "t"], ["f"]), ("MatMul", ["f", "w"], ["y"])]
    assert_freed(model(nodes, [1, 3, 4, 4], [1, 5], t=np.array(target), w=matrix(48, 5)))


def test_heads():
    nodes = [
        ("MatMul", ["x", "w"], ["q"]),
        ("Reshape", ["q", "split"], ["s"]),
        ("Transpose", ["s"], ["t"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["t", "merged"], ["m"]),
        ("Reshape", ["m", "apart"], ["a"]),
        ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["b", "joined"], ["y"]),
    ]
    assert_freed(
        model(
            nodes, [1, 5, 8], [1, 5, 8], w=matrix(8, 8), split=np.array([1, 5, 2, 4]),
            merged=np.array([2, 5, 4]), apart=np.array([1, 2, 5, 4]),
            joined=np.array([1, 5, 8]),
        )
    )  # fmt: skip


def test_length_before_the_batch():
    nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
        ("Reshape", ["t", "rows"], ["r"]),
        ("MatMul", ["r", "w"], ["m"]),
        ("Add", ["m", "b"], ["a"]),
        ("Reshape", ["a", "back"], ["k"]),
        ("Transpose", ["k"], ["y"], {"perm": [1, 0, 2]}),
    ]
    assert_freed(
        model(
            nodes, [1, 5, 8], [1, 5, 6], w=matrix(8, 6), b=matrix(6), rows=np.array([5, 8]),
            back=np.array([5, 1, 6]),
        )
    )  # fmt: skip


def test_class_token():
    nodes = [
        ("MatMul", ["x", "w"], ["h"]),
        ("Concat", ["token", "h"], ["c"], {"axis": 1}),
        ("Add", ["c", "position"], ["y"]),
    ]
    proto = model(
        nodes, [1, 5, 8], [1, 6, 4], w=matrix(8, 4), token=matrix(1, 1, 4),
        position=matrix(1, 6, 4),
    )  # fmt: skip
    graph = assert_freed(proto)
    assert "Expand" in [node.op_type for node in graph.proto.graph.node]


def test_resize():
    nodes = [
        ("Conv", ["x", "w"], ["h"]),
        ("Resize", ["h", "", "", "sizes"], ["y"], {"mode": "nearest"}),
    ]
    graph = assert_freed(
        model(
            nodes, [1, 3, 4, 4], [1, 6, 8, 8], w=matrix(6, 3, 1, 1), sizes=np.array([1, 6, 8, 8])
        )
    )
    # The channels are read from the input too: nothing is to be patched when some are removed.
    assert [6] not in [array.tolist() for array in graph.weights.values() if array.ndim == 1]


def test_batch_of_several_samples():
    nodes = [("Reshape", ["x", "t"], ["f"]), ("MatMul", ["f", "w"], ["y"])]
    assert_freed(model(nodes, [4, 3, 2], [4, 5], t=np.array([4, 6]), w=matrix(6, 5)), batch=4)


def lost():
    """Return a model that takes its first sample."""
    return [
        ("MatMul", ["x", "w"], ["h"]),
        ("Gather", ["h", "zero"], ["g"], {"axis": 0}),
        ("Relu", ["g"], ["y"]),
    ]


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_that_cannot_be_made_symbolic_is_refused(batch):
    proto = model(lost(), [batch, 3, 4], [3, 5], w=matrix(4, 5), zero=np.array(0))
    match = rf"batch is fixed at {batch}, .*output 'y' is not the batch.*symbolic batch"
    with pytest.raises(InputError, match=match):
        read_graph(proto)


def test_batch_that_is_symbolic_in_name_only():
    nodes = [("Reshape", ["x", "t"], ["f"]), ("MatMul", ["f", "w"], ["y"])]
    proto = model(nodes, ["n", 3, 4], ["n", 5], t=np.array([1, 12]), w=matrix(12, 5))
    graph = read_graph(proto)
    found = Session(graph.proto, weights=graph.weights)({"x": np.ones((3, 3, 4), np.float32)})
    assert found["y"].shape == (3, 5)


@pytest.mark.parametrize(
    ("sizes", "shape", "expected"),
    [
        ([1, -1], (1, 3, 4), (1, 12)),
        ([0, -1, 2], (5, 4), (5, 2, 2)),
        ([2, 6], (3, 4), (2, 6)),
        ([5, -1], (3, 4), None),
        ([0, 0, 0], (3, 4), None),
        ([2, 5], (3, 4), None),
        ([], (1,), ()),
    ],
)
def test_target_of_a_reshape(sizes, shape, expected):
    assert resolved(sizes, shape) == expected
