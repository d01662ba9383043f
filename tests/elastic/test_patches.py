"""Rows times the weight's matrix are what ONNX Runtime computes, for any geometry."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwsearch.elastic.analysis.consumers import linear_layers
from hwsearch.elastic.analysis.patches import input_rows, output_rows, row_count
from hwsearch.elastic.graph import Graph
from hwsearch.models.execution import run

CASES = {
    "plain": ("Conv", (6, 4, 3, 3), (7, 8), {}),
    "strided": ("Conv", (6, 4, 3, 3), (9, 8), {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    "dilated": ("Conv", (6, 4, 3, 2), (9, 8), {"dilations": [2, 3], "pads": [2, 1, 0, 3]}),
    "grouped": ("Conv", (6, 2, 3, 3), (5, 5), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", (8, 1, 3, 3), (5, 5), {"group": 4, "pads": [1, 1, 1, 1]}),
    "same upper": ("Conv", (6, 4, 3, 2), (7, 8), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ("Conv", (6, 4, 4, 2), (7, 8), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "valid": ("Conv", (6, 4, 3, 2), (7, 8), {"auto_pad": "VALID"}),
    "1d": ("Conv", (6, 4, 5), (11,), {"pads": [2, 2], "strides": [2]}),
    "3d": ("Conv", (3, 4, 2, 3, 2), (4, 5, 4), {"pads": [1, 1, 0, 0, 1, 1]}),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), (5, 4), {}),
    "transposed, strided": (
        "ConvTranspose",
        (4, 6, 3, 4),
        (5, 4),
        {"strides": [2, 3], "pads": [1, 0, 0, 2], "output_padding": [1, 2]},
    ),
    "transposed, dilated": ("ConvTranspose", (4, 6, 3, 3), (5, 4), {"dilations": [2, 1]}),
    "transposed, grouped": (
        "ConvTranspose",
        (4, 3, 2, 2),
        (5, 4),
        {"group": 2, "strides": [2, 2]},
    ),
    "transposed, shape": (
        "ConvTranspose",
        (4, 6, 3, 3),
        (5, 4),
        {"strides": [2, 2], "output_shape": [10, 8]},
    ),
    "transposed, same": (
        "ConvTranspose",
        (4, 6, 3, 3),
        (5, 4),
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "gemm": ("Gemm", (4, 6), (), {}),
    "gemm, transposed": ("Gemm", (6, 4), (), {"transB": 1, "alpha": 2.0}),
    "tokens": ("MatMul", (4, 6), (5,), {}),
    "from the left": ("MatMul", (6, 5), (5, 3), {"left": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_times_weight_are_the_output(case):
    kind, shape, spatial, attributes = CASES[case]
    attributes = dict(attributes)
    left = attributes.pop("left", 0)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(shape).astype(np.float32)
    x = rng.standard_normal((3, 4, *spatial)).astype(np.float32)
    if kind == "MatMul":
        x = rng.standard_normal((3, *spatial, *(() if left else (4,)))).astype(np.float32)
    reads = ["w", "x"] if left else ["x", "w"]
    node = helper.make_node(kind, reads, ["y"], name="layer", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * x.ndim)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    weights = {"w": weight}
    y = run(proto, {"x": x}, ["y"], weights)["y"]
    layer = linear_layers(Graph(proto=proto, weights=weights, origins={}, shapes={}, digest=""))[
        "layer"
    ]

    count = row_count(layer.window, x.shape, layer.rows_axis)
    chosen = np.sort(rng.permutation(count)[: count // 2])
    axis = layer.rows_axis
    rows = input_rows(layer.window, x, chosen, groups=layer.groups, rows_axis=axis)
    matrix = layer.matrix(weight)
    flat = matrix.reshape(*matrix.shape[:2], -1)
    ours = layer.scale * np.einsum("ngc,grc->ngr", rows, flat).reshape(len(chosen), -1)
    theirs = output_rows(layer.window, y, chosen, rows_axis=axis)
    assert count * theirs.shape[1] == y.size
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    kernel = () if layer.window is None else layer.window.kernel
    np.testing.assert_array_equal(layer.array(matrix, kernel), weight)
