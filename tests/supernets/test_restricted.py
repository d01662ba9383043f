"""A supernet of which only a part is searched."""

import numpy as np
import pytest
import torch

from hwsearch.errors import InputError
from hwsearch.supernets.cifar10_resnet import FAMILY
from hwsearch.supernets.supernet import Supernet


def network(**defaults):
    net = FAMILY.tiny()
    net.defaults = {name.replace("_", "."): option for name, option in defaults.items()}
    return net


@pytest.fixture(scope="module")
def net():
    return Supernet("small", network(), "random:0")


def test_rules_are_kept_and_added_to(net):
    first = net.restrict(freeze=["stage1.*=max"])
    both = first.restrict(only=["stage2.depth in 1"], freeze="stage2.width=8")
    assert (net.freeze, net.only) == ((), ())
    assert (first.freeze, first.only) == (("stage1.*=max",), ())
    assert both.freeze == ("stage1.*=max", "stage2.width=8")
    assert both.only == ("stage2.depth in 1",)
    assert both.space == net.restrict(both.freeze, both.only).space
    assert net.space.size > first.space.size > both.space.size == 2
    assert both.full_space is net.space is net.full_space


def test_what_does_not_depend_on_the_space_stays(net):
    part = net.restrict(["stage1.*=max"])
    assert (part.name, part.checkpoint, part.digest) == (net.name, "random:0", net.digest)
    assert part.network is net.network


def test_only_before_freeze(net):
    part = net.restrict(freeze=["stage2.width=max"]).restrict(only=["stage2.width in 8"])
    assert {arch["stage2.width"] for arch in part.space.enumerate(99)} == {8}


def test_architectures_of_both_spaces_are_its_own(net):
    part = net.restrict(["stage1.*=max"])
    arch = part.space.smallest()[0]
    (full,) = net.full_space.architectures([arch])
    assert arch.key == full.key
    one, same = part.subnet(arch).state_dict(), part.subnet(full).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one | same)
    np.testing.assert_array_equal(
        part.exact("macs", part.space.architectures([arch])),
        net.exact("macs", net.space.architectures([arch])),
    )
    assert part.blocks(net.full_space.smallest()[0])
    other = net.restrict(["stage1.*=min"]).space.smallest()[0]
    with pytest.raises(InputError, match="belongs to another search space"):
        part.subnet(other)


def test_the_family_sees_architectures_of_its_own_space():
    seen = []
    net = network()
    build = net.subnet
    net.subnet = lambda arch: seen.append(arch.space) or build(arch)
    part = Supernet("small", net).restrict(["stage1.*=max"])
    part.subnet(part.space.largest()[0])
    assert seen[0] is net.space


def test_defaults_are_not_searched_unless_a_rule_mentions_them():
    net = Supernet("small", network(stage2_width=8))
    assert {arch["stage2.width"] for arch in net.space.enumerate(99)} == {8}
    assert net.full_space.size == 2 * net.space.size
    assert net.subnet(net.full_space.largest()[0])
    opened = net.restrict(only=["stage2.width in *"])
    assert opened.space == net.full_space
    assert net.restrict(freeze=["stage2.width=max"]).space.smallest()[0]["stage2.width"] == 16


def test_a_rule_that_cannot_be_used(net):
    with pytest.raises(InputError, match=r"stage3.*known: stage1.width"):
        net.restrict(["stage3.*=max"])


@pytest.mark.parametrize(
    ("checkpoint", "untrained"),
    [("random:7", True), (None, False), ("weights.pth", False)],
)
def test_random_weights_are_known_as_such(checkpoint, untrained):
    net = Supernet("small", network(), checkpoint)
    assert net.untrained is net.restrict(["stage1.*=max"]).untrained is untrained
    assert net.weights == ("random:7" if untrained else net.digest[:16])
