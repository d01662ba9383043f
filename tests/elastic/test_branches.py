"""Branches of residual additions, and repeated layers."""

import numpy as np
import onnx
import pytest

from hwsearch.elastic.analysis.branches import find_branches
from hwsearch.elastic.analysis.structure import analyse
from tests.elastic.miniature_networks import NETWORKS, miniature
from tests.elastic.removal import drawn_inputs, outputs, plain_graph, with_weights

EXPECTED = {
    "residual": ["layer1.0.keep", "layer1.1.keep", "layer2.1.keep"],
    "inverted residual": ["blocks.0.keep", "blocks.2.keep"],
    "pre-norm": [
        "blocks.0.attention.keep", "blocks.0.ffn.keep", "blocks.1.attention.keep",
        "blocks.1.ffn.keep",
    ],
    "post-norm": [
        "layer.0.attention.keep", "layer.0.ffn.keep", "layer.1.attention.keep",
        "layer.1.ffn.keep", "layer.2.attention.keep", "layer.2.ffn.keep",
    ],
    "channels last": ["stages.0.keep", "stages.1.keep"],
}  # fmt: skip


LAYERS = {
    "pre-norm": ["blocks.0.keep", "blocks.1.keep"],
    "post-norm": ["layer.0.keep", "layer.1.keep", "layer.2.keep"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_names(name):
    found = analyse(plain_graph(miniature(name)))
    assert [branch.name for branch in found.branches] == EXPECTED.get(name, [])
    assert [layer.name for layer in found.layers] == LAYERS.get(name, [])


def without(graph, left_out, replaced):
    """Return the model without some nodes, with other values in place of some."""
    nodes = []
    for node in graph.proto.graph.node:
        if node.name in left_out:
            continue
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        for position, name in enumerate(copy.input):
            copy.input[position] = replaced.get(name, name)
        nodes.append(copy)
    return with_weights(graph, graph.weights, nodes)


@pytest.mark.parametrize("name", EXPECTED)
def test_models_without_each_branch_run(name):
    graph = plain_graph(miniature(name))
    whole = with_weights(graph, graph.weights)
    inputs = drawn_inputs(graph)
    reference = outputs(whole, inputs)
    found = analyse(graph)
    nodes = {node.name: node for node in graph.proto.graph.node}
    cases = [(layer.nodes, {layer.output: layer.input}) for layer in found.layers]
    for branch in found.branches:
        addition = nodes[branch.node]
        stream = {addition.output[0]: addition.input[1 - branch.side]}
        cases.append(((*branch.nodes, branch.node), stream))
    for left_out, replaced in cases:
        ours = outputs(without(graph, left_out, replaced), inputs)
        for a, b in zip(ours, reference, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() > 1e-4


def test_branches_beside_one_another():
    text = """agraph (float[N,4,6,6] x) => (float[N,4,6,6] y) {
        n = Relu(x) f = Conv(n, w1) g = Conv(n, w2) s = Add(x, f) t = Add(s, g) y = Relu(t) }"""
    graph = onnx.parser.parse_graph(text)
    for name in ("w1", "w2"):
        weight = np.zeros((4, 4, 1, 1), "f4")
        graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    opset = [onnx.helper.make_opsetid("", 17)]
    found = plain_graph(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))
    macs = {node.name: 1 for node in found.proto.graph.node if node.op_type == "Conv"}
    branches, layers = find_branches(found, macs)
    outputs_of = {node.name: node.output[0] for node in found.proto.graph.node}
    assert [(each.side, outputs_of[each.node]) for each in branches] == [(1, "s"), (1, "t")]
    assert not layers
