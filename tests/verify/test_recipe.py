"""A file in int8 follows from its blocks and ranges, and any other is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwsearch.errors import VerificationError
from hwsearch.models.onnx_file import read_metadata
from hwsearch.models.qdq import Int8Writer, quantizable_nodes
from hwsearch.models.quantize import RANGES, quantize_int8, state
from hwsearch.supernets.supernet import Supernet
from hwsearch.verify.recipe import check_blocks, check_recipe, float32_form
from tests.elastic.networks import network
from tests.models import test_qdq
from tests.models.test_convert import converted, net, with_precisions

__all__ = ["net"]
many_operators, pictures = test_qdq.many_operators, test_qdq.pictures


@pytest.fixture(scope="module")
def mixed(net):
    arch = with_precisions(net, lambda name: "int8" if "stage2" in name else "fp32")
    return converted(net, arch)[1], net.precisions(arch)


def changed(model, name, change):
    """A copy of a model, one of whose initialisers is changed."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = next(t for t in copy.graph.initializer if t.name == name)
    tensor.CopyFrom(
        numpy_helper.from_array(np.asarray(change(numpy_helper.to_array(tensor))), name)
    )
    return copy


@pytest.mark.parametrize("how", test_qdq.WAYS, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_a_file_is_written_again_from_its_ranges(how, share, many_operators, pictures):
    rng = np.random.default_rng(int(10 * share))
    nodes = [name for name in quantizable_nodes(many_operators) if rng.random() <= share]
    made = quantize_int8(many_operators, pictures, how, nodes=nodes)
    ranges = {n: tuple(e) for n, e in json.loads(read_metadata(made)[RANGES]).items()}
    again = Int8Writer(float32_form(made), ranges, how).write(nodes)
    assert list(again.graph.node) == list(made.graph.node)
    ours, theirs = (
        {t.name: numpy_helper.to_array(t) for t in each.graph.initializer}
        for each in (made, again)
    )
    for name in ranges:
        for part in ("scale", "zero_point"):
            if f"{name}_{part}" in ours:
                assert ours[f"{name}_{part}"].tobytes() == theirs[f"{name}_{part}"].tobytes()


def test_files_of_blocks_pass(net, mixed):
    assert check_recipe(*mixed)
    arch = net.precision.throughout(net.structures.largest(), net.space)[0]
    assert check_recipe(converted(net, arch)[1], net.block_precisions(arch, "int8"))


def test_files_of_elastic_models_pass():
    elastic = network("residual_cnn")
    small = Supernet("small", elastic).with_precision("fp32", "int8", per="block")
    some = small.precision.blocks[0]
    arch = with_precisions(small, lambda name: "int8" if name.endswith(f".{some}") else "fp32")
    assert check_recipe(converted(small, arch)[1], small.block_precisions(arch, "mixed"))


def test_files_without_ranges_are_not_checked(mixed):
    copy = onnx.ModelProto.FromString(mixed[0].SerializeToString())
    state(copy, **{RANGES: None})
    assert not check_recipe(copy, {})


@pytest.mark.parametrize(
    ("suffix", "change", "text"),
    [
        ("_scale", lambda a: np.nextafter(a, np.float32(9)), "has scale"),
        ("_zero_point", lambda a: a + np.ones_like(a), "has zero point"),
    ],
)
def test_a_scale_of_other_bits_is_refused(suffix, change, text, mixed):
    model, blocks = mixed
    ranges = json.loads(read_metadata(model)[RANGES])
    names = {t.name for t in model.graph.initializer}
    name = next(f"{n}{suffix}" for n in ranges if f"{n}{suffix}" in names)
    with pytest.raises(VerificationError, match=f"{text} .* follows from its range"):
        check_recipe(changed(model, name, change), blocks)


def test_a_bias_in_other_scales_is_refused(mixed):
    model, blocks = mixed
    name = next(t.name for t in model.graph.initializer if t.name.endswith("_quantized_scale"))
    with pytest.raises(VerificationError, match="has another scale than its input and weight"):
        check_recipe(changed(model, name, lambda a: a * np.float32(2)), blocks)


def test_a_range_that_the_scale_is_not_of_is_refused(mixed):
    model, blocks = mixed
    ranges = json.loads(read_metadata(model)[RANGES])
    name = next(n for n in ranges if f"{n}_scale" in {t.name for t in model.graph.initializer})
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    state(copy, **{RANGES: json.dumps(ranges | {name: [-1e3, 1e3]})})
    with pytest.raises(VerificationError, match="follows from its range -1000 to 1000"):
        check_recipe(copy, blocks)


@pytest.mark.parametrize(
    ("wrong", "text"), [("int8", "leaves .* in float32"), ("fp32", "quantises")]
)
def test_a_block_of_another_precision_is_refused(wrong, text, mixed):
    model, blocks = mixed
    name = next(n for n, precision in blocks.items() if precision != wrong)
    with pytest.raises(VerificationError, match=text):
        check_recipe(model, blocks | {name: wrong})


def test_nodes_that_are_not_quantised_are_refused(mixed):
    model, blocks = mixed
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    weight = next(n for n in copy.graph.node if n.name.endswith("weight_DequantizeLinear"))
    scales = {t.name: numpy_helper.to_array(t) for t in copy.graph.initializer}
    integers, scale, _ = (scales[name] for name in weight.input)
    array = integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
    copy.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), "loose"))
    reader = next(n for n in copy.graph.node if weight.output[0] in n.input)
    reader.input[1] = "loose"
    copy.graph.node.remove(weight)
    with pytest.raises(VerificationError, match=r"leaves|has a node|has \d+ nodes"):
        check_recipe(copy, blocks)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"precision": "int8"}, "says precision int8, and its blocks are"),
        ({"blocks": {"a": "fp32", "b": "int8"}}, "block a is fp32, and its architecture .* int8"),
        ({"blocks": {"b": "int8", "c": "fp32"}}, "block a is not there"),
    ],
)
def test_cards_that_contradict_themselves_are_refused(change, text):
    card = {
        "precision": "mixed",
        "blocks": {"a": "int8", "b": "fp32"},
        "architecture": {"width": 3, "precision.a": "int8", "precision.b": "fp32"},
    }
    check_blocks(card)
    with pytest.raises(VerificationError, match=text):
        check_blocks(card | change)


def test_a_card_of_one_precision_has_that_of_its_architecture():
    card = {"precision": "int8", "architecture": {"precision": "fp32"}}
    with pytest.raises(VerificationError, match="says precision int8, and its architecture fp32"):
        check_blocks(card)
    check_blocks(card | {"architecture": {"precision": "int8"}})
    check_blocks({"architecture": {}})
