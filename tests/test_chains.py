import numpy as np
import pytest

from hwsearch import chains
from hwsearch.chains import ChainIndex
from hwsearch.errors import InputError
from hwsearch.space import Choice, SearchSpace
from tests.chained import SPACE, block, blocks


def expected_specs(space, of=blocks):
    return {b.spec for arch in space.enumerate(10_000) for b in of(arch)}


@pytest.fixture(scope="module")
def index():
    return ChainIndex(SPACE, blocks)


def test_finds_every_block_spec_and_its_macs(index):
    assert set(index.specs) == expected_specs(SPACE)
    assert len(index.specs) == len(set(index.specs))
    macs = {b.spec: b.macs for arch in SPACE.enumerate(10_000) for b in blocks(arch)}
    assert [macs[spec] for spec in index.specs] == index.macs.tolist()


def test_finds_the_choices_that_decide_each_block(index):
    deciding = {
        name: {SPACE.names[column] for column in columns}
        for name, columns in zip(index.places, index.deciding, strict=True)
    }
    assert deciding["stem"] == {"resolution", "width"}
    assert deciding["block1"] == {"resolution", "width", "act", "block1.kernel"}
    assert deciding["block3"] == {"resolution", "width", "act", "depth", "block3.kernel"}
    assert deciding["head"] == {"width", "squeeze"}


def test_numbers_are_the_blocks_of_every_architecture(index):
    archs = SPACE.enumerate(10_000)
    for arch, row in zip(archs, index.numbers(archs), strict=True):
        found = {
            name: index.specs[number]
            for name, number in zip(index.places, row, strict=True)
            if number >= 0
        }
        assert found == {b.name: b.spec for b in blocks(arch)}


def test_counts_a_spec_that_is_there_twice(index):
    kernels = {"block1.kernel": 3, "block2.kernel": 3, "block3.kernel": 5}
    rest = {"resolution": 24, "width": 4, "depth": 3, "act": "relu", "squeeze": False}
    arch = SPACE.architectures({**kernels, **rest})
    (counts,) = index.counts(arch)
    spec = block("", "residual", 24, 4, kernel=3, swish=False).spec
    assert counts[index.specs.index(spec)] == 2
    assert counts.sum() == 5


def test_every_spec_of_a_restricted_space_is_found_too():
    part = SPACE.restrict({"resolution": [32], "depth": [1, 2], "squeeze": [True]})
    assert set(ChainIndex(part, blocks).specs) == expected_specs(part)


def test_tries_far_fewer_architectures_than_there_are():
    names = [f"b{number}" for number in range(12)]
    space = SearchSpace(Choice(name, (1, 2, 3, 4)) for name in names)
    tried = []

    def wide(arch):
        tried.append(arch.key)
        return [block(name, name, 8, 4, size=arch[name]) for name in names]

    index = ChainIndex(space, wide)
    assert len(index.specs) == 48
    assert len(tried) < 500
    assert space.size == 4**12


def test_is_the_same_every_time():
    first, second = ChainIndex(SPACE, blocks, seed=3), ChainIndex(SPACE, blocks, seed=3)
    assert first.specs == second.specs
    assert first.places == second.places


def test_a_network_that_is_no_chain_is_refused():
    with pytest.raises(InputError, match="is no chain of blocks"):
        ChainIndex(SPACE, lambda arch: None)


def test_two_blocks_of_one_name_are_refused():
    with pytest.raises(InputError, match="two blocks named 'stem'"):
        ChainIndex(SPACE, lambda arch: [blocks(arch)[0]] * 2)


def test_a_block_that_everything_decides_is_refused(monkeypatch):
    monkeypatch.setattr(chains, "MAX_COMBINATIONS", 20)
    with pytest.raises(InputError, match=r"decided by 4 choices \(.*\) with 36 combinations"):
        ChainIndex(SPACE, blocks)


def test_architectures_of_another_space_are_refused(index):
    part = SPACE.restrict({"depth": [1]})
    with pytest.raises(InputError, match="another space"):
        index.numbers(part.sample(3, 0))


def test_counts_add_up_to_the_chain(index):
    archs = SPACE.enumerate(10_000)
    for quantity in ("macs", "params"):
        expected = [sum(getattr(b, quantity) for b in blocks(arch)) for arch in archs]
        assert (index.counts(archs) @ getattr(index, quantity)).tolist() == expected


def test_a_block_that_was_not_found_by_trying_is_named(index):
    found = ChainIndex(SPACE, blocks)
    found.tables[0] = np.full_like(found.tables[0], chains.UNSEEN)
    with pytest.raises(InputError, match=r"block 'stem' of .* is decided by other choices"):
        found.numbers(SPACE.sample(3, 0))


def test_equal_specs_of_other_costs_are_refused():
    def stated(arch):
        return [block("stem", "conv", 8, 4, macs=100 * arch["width"], size=3)]

    with pytest.raises(InputError, match="another block of equal spec"):
        ChainIndex(SPACE, stated)
