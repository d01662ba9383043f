import numpy as np
import pytest

from hwsearch.chains import ChainIndex
from hwsearch.encoding import onehot
from hwsearch.errors import InputError
from hwsearch.prediction.subnet_design import choose_subnets, covering_subnets
from hwsearch.space import Architectures
from tests.chained import SPACE, blocks


@pytest.fixture(scope="module")
def index():
    return ChainIndex(SPACE, blocks)


def holding(index, archs):
    """In how many subnets each spec is."""
    return (index.counts(archs) > 0).sum(axis=0)


def macs(archs):
    return np.array([sum(b.macs for b in blocks(arch)) for arch in archs], dtype=float)


@pytest.mark.parametrize("repeats", [1, 3])
def test_every_spec_is_in_as_many_subnets_as_wanted(index, repeats):
    cover = covering_subnets(index, index.specs, repeats=repeats, seed=0)
    assert holding(index, cover).min() >= repeats
    assert len(cover.unique()) == len(cover)


def test_the_cover_is_small(index):
    # 36 residual specs, at most 3 in a subnet, 3 times each.
    assert len(covering_subnets(index, index.specs, repeats=3, seed=0)) <= 42


def test_covers_only_what_is_asked_for(index):
    few = index.specs[:3]
    assert len(covering_subnets(index, few, repeats=1, seed=0)) <= 3
    assert len(covering_subnets(index, [], repeats=1, seed=0)) == 0


def test_a_spec_that_few_subnets_hold_ends_the_search_for_more():
    part = SPACE.restrict({"depth": [1], "resolution": [24], "width": [4], "act": ["relu"]})
    part = part.restrict({"block1.kernel": [3], "squeeze": [False]})
    index = ChainIndex(part, blocks)
    assert len(covering_subnets(index, index.specs, repeats=3, seed=0)) == part.size == 1


def test_the_same_seed_chooses_the_same(index):
    chosen = [covering_subnets(index, index.specs, repeats=2, seed=4) for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert choose_subnets(SPACE, 7, macs, seed=4) == choose_subnets(SPACE, 7, macs, seed=4)


def test_chosen_subnets_are_spread_evenly_over_their_size():
    sizes = macs(choose_subnets(SPACE, 12, macs, seed=0))
    everything = macs(SPACE.enumerate(10_000))
    assert (np.diff(sizes) >= 0).all()
    even = np.linspace(everything.min(), everything.max(), 12)
    assert np.abs(sizes - even).max() < 0.1 * np.ptp(everything)


def test_chosen_subnets_hold_every_option():
    encoded = onehot(choose_subnets(SPACE, 12, macs, seed=0))
    assert encoded.any(axis=0).all()


def test_excluded_subnets_are_not_chosen():
    before = choose_subnets(SPACE, 30, macs, seed=0)
    after = choose_subnets(SPACE, 30, macs, seed=0, exclude=before)
    assert len(Architectures.concatenate([before, after]).unique()) == 60


def test_a_small_space_is_chosen_whole():
    part = SPACE.restrict({"depth": [1], "resolution": [24], "width": [4, 6]})
    assert len(choose_subnets(part, 1000, macs, seed=0)) == part.size


def test_none_to_choose_is_refused():
    with pytest.raises(InputError, match="cannot choose 0 subnets"):
        choose_subnets(SPACE, 0, macs, seed=0)
