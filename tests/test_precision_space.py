"""Precision as choices of a search space."""

from collections import namedtuple

import numpy as np
import pytest

from hwsearch.blocks import Block, BlockSpec
from hwsearch.choices import Choice
from hwsearch.errors import InputError
from hwsearch.precision import (
    PrecisionSetting,
    PrecisionSpace,
    checked_options,
    conditions,
    file_kind,
    in_precisions,
    spread,
)
from hwsearch.space import SearchSpace

Node = namedtuple("Node", "name input output")
STRUCTURES = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        Choice("width", (4, 8)),
        Choice("block2.kernel", (3, 5), ("depth", (2, 3))),
    ]
)


def names_of(arch):
    return ["stem", *(f"block{number + 1}" for number in range(arch["depth"])), "head"]


def per_block(*options):
    return PrecisionSpace(STRUCTURES, options, conditions(STRUCTURES, names_of))


def test_one_choice_for_the_whole_network():
    found = PrecisionSpace(STRUCTURES, ("fp32", "int8"))
    assert found.space.names == [*STRUCTURES.names, "precision"]
    assert found.space.choices[-1].options == ("int8", "fp32")
    assert found.space.size == 2 * STRUCTURES.size
    assert found.of(found.space.largest()[0]) == {"": "fp32"}
    assert str(found) == "int8,fp32"


def test_a_block_has_a_precision_where_it_is_there():
    found = per_block("fp32", "int8")
    conditions_of = {choice.name: choice.active for choice in found.space.choices[3:]}
    assert conditions_of == {
        "precision.stem": None,
        "precision.block1": None,
        "precision.block2": ("depth", (2, 3)),
        "precision.block3": ("depth", (3,)),
        "precision.head": None,
    }
    small = found.space.smallest()[0]
    assert found.of(small) == {"stem": "int8", "block1": "int8", "head": "int8"}
    assert str(found) == "int8,fp32:per-block"


def test_structures_have_the_keys_of_the_space_without_precision():
    found = per_block("fp32", "int8")
    archs = found.space.sample(50, 0)
    kept = found.all_structures(archs)
    assert kept.space == STRUCTURES
    assert list(kept.ids) == [found.structure(arch).key for arch in archs]
    known = {arch.key for arch in STRUCTURES.enumerate(STRUCTURES.size)}
    assert {arch.key for arch in kept} <= known


def test_structures_of_a_restricted_space():
    found = per_block("fp32", "int8")
    part = found.space.restrict({"depth": (1, 2), "precision.head": ("fp32",)})
    archs = part.sample(20, 0)
    assert [found.structure(arch).key for arch in archs] == list(found.all_structures(archs).ids)


def test_structures_in_every_precision_keep_what_is_restricted():
    found = per_block("fp32", "int8")
    part = found.space.restrict({"precision.head": ("fp32",)})
    archs = found.throughout(STRUCTURES.largest(), part)
    assert [found.of(arch)["head"] for arch in archs] == ["fp32", "fp32"]
    assert [found.of(arch)["stem"] for arch in archs] == ["int8", "fp32"]


def test_a_block_that_two_choices_decide_has_its_precision_always():
    def names(arch):
        both = arch["depth"] == 3 and arch["width"] == 8
        return ["stem", *(["extra"] if both else [])]

    assert conditions(STRUCTURES, names) == {"stem": None, "extra": None}


def test_a_block_that_the_largest_architecture_lacks():
    def names(arch):
        return ["stem", "small" if arch["width"] == 4 else "large"]

    found = conditions(STRUCTURES, names)
    assert found["small"] == ("width", (4,))
    assert found["large"] == ("width", (8,))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("fp32", "give two or more"),
        ("fp32,fp32", "give two or more"),
        ("fp32,int9", "unknown precision 'int9'"),
        ("fp32,bf16", "openvino:precision=bf16"),
        ("fp32,int8:per-layer", "write 'fp32,int8'"),
        ("", "unknown precision ''"),
    ],
)
def test_bad_settings_say_what_is_allowed(given, text):
    with pytest.raises(InputError, match=text):
        PrecisionSetting.parse(given)


def test_a_setting_as_it_was_given():
    found = PrecisionSetting.parse("fp32, int8 :per-block")
    assert found == PrecisionSetting(("int8", "fp32"), "block")
    assert PrecisionSetting.parse(str(found)) == found


def test_float16_is_no_precision_of_a_block():
    with pytest.raises(InputError, match="of the whole network"):
        per_block("fp32", "fp16")


def test_options_are_ordered_by_bits():
    assert checked_options(["fp32", "int8", "int8-dynamic"]) == ("int8", "int8-dynamic", "fp32")


def test_a_file_of_several_precisions_is_mixed():
    assert file_kind({"a": "int8", "b": "fp32"}) == "mixed"
    assert file_kind({"a": "int8", "b": "int8"}) == "int8"


def test_nodes_between_blocks_belong_to_the_one_before():
    nodes = [
        Node("1", ["image"], ["scaled"]),
        Node("2", ["scaled", "w"], ["a"]),
        Node("3", ["a"], ["relu"]),
        Node("4", ["relu", "v"], ["b"]),
        Node("5", ["a", "b"], ["sum"]),
        Node("6", ["b", "a"], ["other"]),
    ]
    known = {"2": "one", "4": "two"}
    found = spread(nodes, lambda node: known.get(node.name))
    assert list(found.values()) == ["one", "one", "one", "two", "one", "two"]
    assert list(found) == [node.name for node in nodes]


def test_samples_of_the_space_are_canonical():
    found = per_block("fp32", "int8")
    archs = found.space.sample(200, 1)
    gone = archs.indices[:, found.space.names.index("depth")] < 2
    column = found.space.names.index("precision.block3")
    assert not archs.active[gone, column].any()
    assert np.all(archs.indices[gone, column] == 0)


def chain_of(*names):
    spec = BlockSpec(kind="conv", hyperparameters=(("out", 4), ("stride", 1)), input_shape=(4, 8))
    return [Block(name=name, spec=spec, macs=10, params=2) for name in names]


def shown(chain):
    return [(b.name, dict(b.spec.hyperparameters).get("precision")) for b in chain]


def test_a_chain_in_float32_stays_as_it_is():
    chain = chain_of("stem", "pool", "head")
    assert in_precisions(chain, {}) == chain
    assert in_precisions(chain, {"": "fp32"}) == chain
    assert in_precisions(chain, {"stem": "fp32", "head": "fp32"}) == chain


def test_a_chain_of_one_precision_has_no_boundaries():
    assert shown(in_precisions(chain_of("stem", "head"), {"": "int8"})) == [
        ("stem", "int8"),
        ("head", "int8"),
    ]


def test_boundaries_stand_where_activations_are_converted():
    """A block without a precision has that of the block before, the first ones of the next."""
    chain = chain_of("resize", "stem", "pool", "block", "head")
    found = in_precisions(chain, {"stem": "int8", "block": "fp32", "head": "int8"})
    assert shown(found) == [
        ("resize", "int8"),
        ("stem", "int8"),
        ("pool", "int8"),
        ("block.boundary", None),
        ("block", None),
        ("head.boundary", None),
        ("head", "int8"),
    ]
    first, second = (b for b in found if b.spec.kind == "boundary")
    assert first.spec.hyperparameters == (("from", "int8"), ("to", "fp32"))
    assert second.spec.hyperparameters == (("from", "fp32"), ("to", "int8"))
    assert first.spec.input_shape == chain[3].spec.input_shape
    assert (first.macs, first.params) == (0, 0)
    assert found[1].spec.hyperparameters == (("out", 4), ("precision", "int8"), ("stride", 1))


def test_precisions_with_activations_in_float32_have_no_boundaries():
    found = in_precisions(chain_of("a", "b", "c"), {"a": "int8-dynamic", "b": "fp32", "c": "int4"})
    assert [name for name, _ in shown(found)] == ["a", "b", "c"]
