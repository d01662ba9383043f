"""Exact costs of batches, looked up in the block index or counted one by one."""

import numpy as np
import pytest
from torch import nn

from hwsearch import supernet_names
from hwsearch.chains import ChainIndex
from hwsearch.errors import EvaluationError, InputError
from hwsearch.space import Architectures, Choice, SearchSpace
from hwsearch.supernets import exact_costs
from hwsearch.supernets.interface import Card, InputSpec, TensorSpec
from hwsearch.supernets.module_costs import module_costs
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family
from tests.chained import SPACE, block, blocks


class Chained:
    """A supernet of made-up blocks, which says how often it was asked for them."""

    card = Card(name="chained", description="", licence="", source="")
    digest, recalibrate = "0", ()

    def __init__(self, blocks=blocks, space=SPACE):
        self.space, self._blocks, self.asked = space, blocks, 0

    def blocks(self, arch):
        self.asked += 1
        return self._blocks(arch)

    def input_spec(self, arch):
        return InputSpec(inputs=(TensorSpec(name="x", shape=(arch["width"],)),))

    def subnet(self, arch):
        return nn.Linear(arch["width"], 3)


def chained(**given):
    return Supernet("chained", Chained(**given))


def one_by_one(net, archs):
    chains = [net.blocks(arch) for arch in archs]
    macs = [sum(b.macs for b in chain) for chain in chains]
    return macs, [sum(b.params for b in chain) for chain in chains]


@pytest.mark.parametrize("name", [n for n in supernet_names() if "test" not in n])
def test_batches_cost_what_their_blocks_cost(name):
    net = Supernet(name, load_family(name).tiny())
    for space in (net.full_space, net.space):
        archs = Architectures.concatenate(
            [space.sample(400, seed=0), space.smallest(), space.largest()]
        )
        macs, params = one_by_one(net, archs)
        assert net.exact("macs", archs).tolist() == macs
        assert net.exact("params", archs).tolist() == params
        assert net.exact("bytes", archs).tolist() == [4 * each for each in params]
        assert [int(net.exact("macs", archs[i : i + 1])[0]) for i in range(9)] == macs[:9]


def test_blocks_are_asked_for_once_for_all_batches():
    net = chained()
    net.exact("macs", net.space.sample(1000, seed=0))
    asked = net.network.asked
    net.exact("params", net.space.sample(5000, seed=1))
    part = net.restrict(only=["depth in 1,2", "width in 6"])
    archs = part.space.sample(500, seed=2)
    found = part.exact("macs", archs)
    assert net.network.asked == asked
    assert found.tolist() == one_by_one(part, archs)[0]


def test_a_few_architectures_need_no_index(monkeypatch):
    monkeypatch.setattr(exact_costs, "ChainIndex", None)
    net = chained()
    archs = net.space.sample(20, seed=0)
    assert net.exact("macs", archs).tolist() == one_by_one(net, archs)[0]


def test_what_is_no_chain_is_counted_once_each():
    net = chained(blocks=lambda arch: None)
    archs = net.space.sample(300, seed=0)
    expected = [3 * arch["width"] for arch in archs]
    assert net.exact("macs", archs).tolist() == expected
    asked = net.network.asked
    assert net.exact("params", archs).tolist() == [each + 3 for each in expected]
    assert net.restrict().exact("macs", archs).tolist() == expected
    assert net.network.asked == asked


@pytest.mark.parametrize("kind", ["equal specs of other costs", "too many choices"])
def test_blocks_that_make_no_index_are_summed_one_by_one(kind):
    def odd(arch):
        size = sum(map(hash, arch.values())) % 97 + 1
        if kind == "equal specs of other costs":
            return [block("stem", "conv", 8, 4, macs=100 * size, size=3)]
        return [block("stem", "conv", 8, 4, size=size)]

    wide = SearchSpace(Choice(f"c{i}", tuple(range(4))) for i in range(9))
    net = chained(blocks=odd, space=wide if kind == "too many choices" else SPACE)
    archs = net.space.sample(250, seed=0)
    assert net.exact("macs", archs).tolist() == one_by_one(net, archs)[0]


def test_an_index_that_meets_an_unknown_block_is_given_up(monkeypatch):
    net = chained()
    archs = net.space.sample(300, seed=0)
    expected = one_by_one(net, archs)[0]

    def incomplete(space, asked):
        found = ChainIndex(space, asked)
        found.tables[0] = np.full_like(found.tables[0], -2)
        return found

    monkeypatch.setattr(exact_costs, "ChainIndex", incomplete)
    assert net.exact("macs", archs).tolist() == expected


def test_an_architecture_without_blocks_is_named():
    def broken(arch):
        if arch["depth"] == 3:
            raise RuntimeError("no third block")
        return blocks(arch)

    net = chained(blocks=broken)
    archs = net.space.sample(300, seed=0)
    with pytest.raises(EvaluationError, match=r"costs of \w+ cannot be computed: .*third block"):
        net.exact("macs", archs)
    fine = archs[[arch["depth"] < 3 for arch in archs]]
    assert net.exact("macs", fine).tolist() == one_by_one(net, fine)[0]


def test_architectures_of_another_space_are_refused():
    other = SearchSpace([Choice("width", (4, 6))])
    with pytest.raises(InputError, match="another search space"):
        chained().exact("macs", other.sample(2, seed=0))


def test_counting_without_numbers_is_counting():
    """Norms and activations are skipped there, which changes neither shapes nor MACs."""
    from hwsearch.supernets.builder import piece_facts
    from hwsearch.supernets.conv_blocks import InvertedResidual

    for act in ("relu", "relu6", "hardswish"):
        piece = InvertedResidual(out=16, kernel=5, expand=4, stride=2, act=act, se=True)
        facts = piece_facts(piece, (8, 10, 12))
        module = piece.build((8, 10, 12)).eval()
        spec = [TensorSpec(name="x", shape=(8, 10, 12))]
        assert (facts.macs, facts.params) == module_costs(module, spec)
        assert facts.output == (16, 5, 6)
