"""Names of groups and branches as users know them."""

import numpy as np
import onnx
import pytest

from hwsearch.elastic.analysis.names import (
    Scopes,
    common_module,
    module_of,
    name_branches,
    name_groups,
    unique,
)
from hwsearch.elastic.graph import Branch, Graph, Group, Origin, Slot


@pytest.mark.parametrize(
    ("weight", "module"),
    [
        ("layer3.2.conv1.weight", "layer3.2.conv1"),
        ("encoder.layer.4.attention.self.query.bias", "encoder.layer.4.attention.self.query"),
        ("resnetv17_conv0_weight", "resnetv17_conv0"),
        ("model/block_1/Conv2D:0", "model.block_1.Conv2D_0"),
        ("layers.0.self_attention.in_proj_weight", "layers.0.self_attention"),
        ("onnx::Conv_497", ""),
        ("onnx::MatMul_88", ""),
        ("497", ""),
        ("val_12", ""),
        ("/blocks/Constant_output_0", ""),
        ("a=b,c.weight", "a_b_c"),
    ],
)  # fmt: skip
def test_modules_of_weights(weight, module):
    assert module_of(weight) == module


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.2/conv/conv.0/conv.0.0/Conv", "features.2.conv.0.0"),
        ("/encoder/layer.0/attention/self/query/MatMul", "encoder.layer.0.attention.self.query"),
        ("Conv_12", "Conv_12"),
    ],
)
def test_modules_of_nodes(node, module):
    assert scopes([(node, "onnx::Conv_1")]).of(node) == module


def scopes(nodes):
    graph = onnx.GraphProto()
    for name, weight in nodes:
        graph.node.append(onnx.helper.make_node("Conv", ["x", weight], ["y"], name=name))
    weights = {weight: np.zeros(1) for _, weight in nodes}
    origins = {weight: Origin(name=weight) for _, weight in nodes}
    proto = onnx.ModelProto(graph=graph)
    return Scopes(Graph(proto=proto, weights=weights, origins=origins, shapes={}, digest=""))


def group(kind, makers, readers=()):
    slots = [Slot(weight=n, axis=0, positions=np.zeros((2, 1), int), node=n, role="out")
             for n in makers]  # fmt: skip
    slots += [Slot(weight=n, axis=1, positions=np.zeros((2, 1), int), node=n, role="in")
              for n in readers]  # fmt: skip
    return Group(name="", kind=kind, size=2, slots=tuple(slots))


def named(*groups):
    nodes = {slot.node for each in groups for slot in each.slots}
    known = scopes([(node, f"{node}.weight") for node in sorted(nodes)])
    return [each.name for each in name_groups(groups, known)]


def test_groups():
    assert named(
        group("inner", ["layer3.2.conv1"], ["layer3.2.conv2"]),
        group("residual", ["conv1", "layer1.0.conv2", "layer1.1.conv2"]),
        group("residual", ["layer3.0.conv3", "layer3.0.downsample.0", "layer3.1.conv3"]),
        group("heads", ["encoder.layer.4.attention.self.q", "encoder.layer.4.attention.self.k"]),
        group("heads", ["blocks.3.attn.qkv"]),
        group("ffn", ["encoder.layer.4.intermediate.dense"], ["encoder.layer.4.output.dense"]),
        group("ffn", ["blocks.3.mlp.fc1"], ["blocks.3.mlp.fc2"]),
    ) == [
        "layer3.2.conv1.width", "layer1.width", "layer3.width", "encoder.layer.4.heads",
        "blocks.3.heads", "encoder.layer.4.ffn", "blocks.3.ffn",
    ]  # fmt: skip


def test_streams_of_one_module_are_told_apart_by_its_parts():
    assert named(
        group("residual", ["features.2.conv.2", "features.3.conv.2"]),
        group("residual", ["features.4.conv.2", "features.5.conv.2", "features.6.conv.2"]),
    ) == ["features.2-3.width", "features.4-6.width"]


def test_two_attentions_of_a_layer_keep_their_modules():
    assert named(
        group("heads", ["decoder.0.self_attn.q_proj", "decoder.0.self_attn.k_proj"]),
        group("heads", ["decoder.0.encoder_attn.q_proj", "decoder.0.encoder_attn.k_proj"]),
    ) == ["decoder.0.heads", "decoder.0.encoder_attn.heads"]


def test_units_of_one_layer_in_several_groups_are_numbered():
    assert named(group("inner", ["stem"]), group("inner", ["stem"]), group("inner", ["last"])) == [
        "stem.width", "stem.width.2", "last.width",
    ]  # fmt: skip


def test_branches():
    nodes = ["layer.4.attention.self.query", "layer.4.attention.output.dense",
             "layer.4.intermediate.dense", "layer.4.output.dense", "features.3.conv.0",
             "features.3.conv.1"]  # fmt: skip
    known = scopes([(node, f"{node}.weight") for node in nodes])
    branches = [
        Branch(name="", node="add", side=0, nodes=tuple(nodes[at : at + 2])) for at in (0, 2, 4)
    ]
    found = name_branches(branches, ["attention", "ffn", "block"], known, ["other"])
    assert [branch.name for branch in found] == [
        "layer.4.attention.keep", "layer.4.ffn.keep", "features.3.keep",
    ]  # fmt: skip


def test_common_module_is_one_of_whole_parts():
    assert common_module(["layer1.0.conv1", "layer1.0.conv2"]) == "layer1.0"
    assert common_module(["layer1.0", "layer10.0"]) == ""


def test_unique_names_do_not_depend_on_what_is_taken_already_being_there_twice():
    assert unique([["a"], ["a"], ["b", "c"]], ["b"]) == ["a", "a.2", "c"]
    assert unique([["a"], ["a"], ["a.2"]]) == ["a", "a.3", "a.2"]
