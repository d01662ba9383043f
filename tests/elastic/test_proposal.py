import numpy as np
import pytest

from hwsearch.elastic.choices import TIED, ElasticSpace
from hwsearch.elastic.graph import Branch, Group, RepeatedLayer, Rest, Structure, Work
from hwsearch.elastic.input_sizes import InputSize
from hwsearch.elastic.proposal import RESOLUTION, SpaceSettings, propose
from hwsearch.errors import InputError
from hwsearch.restriction import restricted
from tests.elastic.small_models import residual_cnn, transformer


def changed(structure, **changes):
    fields = ("graph", "groups", "branches", "work", "rest", "layers")
    return Structure(**{name: getattr(structure, name) for name in fields} | changes)


def test_groups_and_branches_become_choices_in_the_order_of_the_graph():
    found = propose(residual_cnn())
    assert found.space.names == ["stem.width", "block.keep", "block.width", "down.width"]
    choices = {choice.name: choice for choice in found.space.choices}
    assert choices["stem.width"].options == (4, 8, 12, 16)
    assert choices["block.keep"].options == (False, True)
    assert choices["block.width"].active == ("block.keep", (True,))
    assert choices["down.width"].active is None
    assert found.defaults == {}


def test_what_is_not_exact_or_worth_little_is_kept_by_default():
    structure = residual_cnn()
    stem, block, down = structure.groups
    inexact = Group(name=stem.name, kind=stem.kind, size=stem.size, slots=stem.slots, exact=False)
    work = [w for w in structure.work if w.node not in ("down", "head")]
    found = propose(changed(structure, groups=(inexact, block, down), work=tuple(work)))
    assert found.defaults == {"stem.width": 16, "down.width": 32}
    space = restricted(found.space, defaults=found.defaults)
    assert space.size == 1 + 5  # the branch, or one of the widths in it
    freed = restricted(found.space, only=["stem.width in 8,16"], defaults=found.defaults)
    assert freed.size == 2 * space.size


def many_blocks(count):
    """A structure that says it has many equal groups, on the nodes of a small graph."""
    structure = residual_cnn()
    _, block, _ = structure.groups
    groups = [
        Group(name=f"layer1.{n}.conv1.width", kind="inner", size=24, slots=block.slots)
        for n in range(count)
    ]
    work = structure.work[1]
    factors = ((24, {group.name: 1 for group in groups}),)
    worked = type(work)(node=work.node, macs=work.macs, factors=factors)
    return changed(structure, groups=tuple(groups), branches=(), work=(worked,))


def test_equal_layers_are_tied_above_the_number_of_choices_and_a_rule_frees_them():
    found = propose(many_blocks(6), SpaceSettings(most=3))
    ties = ["layer1.0-1.conv1.width", "layer1.2-3.conv1.width", "layer1.4-5.conv1.width"]
    assert [name for name in found.space.names if "-" in name] == ties
    space = restricted(found.space, defaults=found.defaults)
    assert space.size == len(found.space.choices[0].options) ** 3
    freed = restricted(found.space, only=["layer1.3.conv1.width in 8,24"], defaults=found.defaults)
    assert freed.size == 2 * space.size
    arch = freed.architectures(
        {**freed.largest()[0], "layer1.2-3.conv1.width": 12, "layer1.3.conv1.width": 8}
    )
    assert found.select(arch).units.tolist() == [[24, 24, 12, 8, 24, 24]]
    arch = space.architectures({**space.largest()[0], "layer1.2-3.conv1.width": 12})
    assert found.select(arch).units.tolist() == [[24, 24, 12, 12, 24, 24]]


def test_the_largest_architecture_is_the_model_and_the_smallest_is_small():
    found = propose(many_blocks(6), SpaceSettings(most=3))
    assert (found.select(found.space.largest()).units == 24).all()
    assert (found.select(found.space.smallest()).units == 8).all()


def test_inner_branches_depend_on_outer_ones():
    structure = residual_cnn()
    nodes = [node.name for node in structure.graph.proto.graph.node]
    outer = Branch(  # the head stands for an addition
        name="stage.keep", node="head", side=0, nodes=tuple(nodes[: nodes.index("head")])
    )
    found = propose(changed(structure, branches=(*structure.branches, outer)))
    active = {choice.name: choice.active for choice in found.space.choices}
    assert active["block.keep"] == ("stage.keep", (True,))
    assert active["block.width"] == ("block.keep", (True,))
    assert active["stage.keep"] is None
    chosen = found.select(found.space.architectures({"stage.keep": False, "down.width": 8}))
    assert chosen.dropped.tolist() == [[False, True]]


def test_layers_are_searched_instead_of_their_branches():
    structure = transformer()
    nodes = [node.name for node in structure.graph.proto.graph.node]
    layer = RepeatedLayer(name="layer.0.keep", input="tokens", output="norm2", nodes=tuple(nodes))
    work = tuple(Work(node=node, macs=100) for node in ("query.matmul", "ffn.in.matmul"))
    found = propose(changed(structure, layers=(layer,), work=work))
    active = {choice.name: choice.active for choice in found.space.choices}
    assert active["ffn.keep"] == ("layer.0.keep", (True,))
    assert active["attention.heads"] == ("layer.0.keep", (True,))
    assert found.defaults.get("ffn.keep") is True
    assert "layer.0.keep" not in found.defaults


def test_a_layer_that_is_a_branch_is_not_searched_twice():
    structure = residual_cnn()
    inside = (*structure.branches[0].nodes, "block.add", "block.out")
    layer = RepeatedLayer(name="layer.keep", input="stem.relu", output="block.out", nodes=inside)
    found = propose(changed(structure, layers=(layer,)))
    assert found.defaults == {"layer.keep": True}
    active = {choice.name: choice.active for choice in found.space.choices}
    assert active["block.keep"] == ("layer.keep", (True,))


def test_two_branches_of_one_addition_are_not_dropped_together():
    structure = residual_cnn()
    other = Branch(name="stem.keep", node="block.add", side=1, nodes=("stem", "stem.relu"))
    found = propose(changed(structure, branches=(*structure.branches, other)))
    dropped = found.select(found.space.enumerate(10**6)).dropped
    assert {tuple(row) for row in dropped.tolist()} == {
        (False, False), (True, False), (False, True)
    }  # fmt: skip


def test_other_input_sizes_are_a_choice_that_is_not_searched():
    structure = residual_cnn()
    own = {work.node: work.macs for work in structure.work}
    sizes = [
        InputSize(option=8, shapes={"image": (1, 3, 8, 8)}, macs=own),
        InputSize(option=12, shapes={}, macs=own),
    ]
    found = propose(structure, sizes=sizes)
    assert found.space.names[0] == RESOLUTION
    assert found.defaults == {RESOLUTION: 12}
    largest = found.space.largest()[0].mapping
    small = found.space.architectures({**largest, RESOLUTION: 8})
    assert found.shapes(small[0]) == {"image": (1, 3, 8, 8)}
    assert found.shapes(found.space.largest()[0]) == {}
    assert found.select(small).sizes.tolist() == [0]


def test_a_space_survives_json():
    import json

    structure = transformer()
    found = propose(structure, SpaceSettings(step=2))
    read = ElasticSpace.from_dict(structure, json.loads(json.dumps(found.to_dict())))
    assert read.space == found.space
    assert read.meanings == found.meanings
    assert read.defaults == found.defaults
    assert read.step == 2
    archs = found.space.sample(50, seed=0)
    np.testing.assert_array_equal(read.select(archs).units, found.select(archs).units)


def test_a_space_of_another_structure_is_refused():
    content = propose(transformer()).to_dict()
    with pytest.raises(InputError, match=r"choice 'attention.heads' is about attention.heads"):
        ElasticSpace.from_dict(residual_cnn(), content)
    with pytest.raises(InputError, match="no space of an elastic model"):
        ElasticSpace.from_dict(residual_cnn(), {"choices": [{}]})


def test_nothing_to_choose_is_said_with_the_reasons():
    structure = residual_cnn()
    rest = (Rest(what="node Loop_3", reason="control flow", macs=5),)
    bare = changed(structure, groups=(), branches=(), rest=rest)
    with pytest.raises(InputError, match=r"nothing in this model.*Loop_3: control flow"):
        propose(bare)


@pytest.mark.parametrize(
    "wrong", [{"step": 0}, {"most": 0}, {"fractions": (0.0,)}, {"fractions": ()}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(InputError):
        SpaceSettings(**wrong)


def test_a_group_of_one_option_is_no_choice():
    structure = residual_cnn()
    parts = np.repeat([0, 1], [7, 9])
    stem = structure.groups[0]
    odd = Group(name=stem.name, kind=stem.kind, size=16, slots=stem.slots, parts=parts)
    found = propose(changed(structure, groups=(odd, *structure.groups[1:])))
    assert "stem.width" not in found.space.names
    assert TIED not in found.defaults.values()
