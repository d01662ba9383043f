import numpy as np
import pytest

from hwsearch.chains import ChainIndex
from hwsearch.prediction.block_times import (
    Observed,
    from_profiles,
    from_subnets,
    split_nodes,
)
from hwsearch.prediction.subnet_design import covering_subnets
from hwsearch.space import Architectures
from tests.chained import SPACE, blocks

PER_NODE_MS, OVERHEAD_MS = 0.004, 0.03


@pytest.fixture(scope="module")
def index():
    return ChainIndex(SPACE, blocks)


@pytest.fixture(scope="module")
def truth(index):
    """Milliseconds by spec: near proportional to the work, off by up to a third."""
    factor = np.random.default_rng(0).uniform(0.75, 1.33, len(index.specs))
    costs = (index.macs / 2e5 + 0.02) * factor
    return dict(zip(index.specs, costs.tolist(), strict=True))


def observed(arch, truth, *, profiled=True, busy=1.0):
    chain = [(b.name, b.spec) for b in blocks(arch)]
    own = {name: truth[spec] for name, spec in chain}
    latency = OVERHEAD_MS + sum(own.values())
    if not profiled:
        return Observed(chain=chain, latency_ms=latency)
    nodes = {name: 2 + number % 3 for number, name in enumerate(own)}
    profile = {name: busy * (ms + PER_NODE_MS * nodes[name]) for name, ms in own.items()}
    return Observed(chain=chain, latency_ms=latency, blocks_ms=profile, nodes=nodes)


def measured_in(index):
    """Subnets that hold every spec twice, and ones of other depths."""
    cover = covering_subnets(index, index.specs, repeats=2, seed=0)
    return Architectures.concatenate([cover, SPACE.smallest(), SPACE.largest()]).unique()


def errors(found, truth):
    return np.array([found.blocks[spec].latency_ms / ms - 1 for spec, ms in truth.items()])


def test_nodes_belong_to_the_block_with_the_longest_fitting_name():
    times, counts = split_nodes(
        {
            "ReorderInput": 1.0,
            "stem/conv/Conv": 2.0,
            "stemoutput_nchwc": 4.0,
            "block1/add": 8.0,
            "block10/add": 16.0,
            "ReorderOutput_token_3": 32.0,
            "block1_2": 64.0,
        },
        ["stem", "block1", "block10", "merged"],
    )
    assert times == {"stem": 7.0, "block1": 72.0, "block10": 48.0, "merged": 0.0}
    assert counts == {"stem": 3, "block1": 2, "block10": 2, "merged": 0}


def test_profiles_give_the_blocks_and_the_overhead(index, truth):
    cover = measured_in(index)
    found = from_profiles([observed(arch, truth) for arch in cover])
    assert found.method == "profile"
    assert np.abs(errors(found, truth)).max() < 0.07
    assert np.median(np.abs(errors(found, truth))) < 0.01
    assert found.overhead_ms == pytest.approx(OVERHEAD_MS, rel=0.3)


def test_profiles_from_a_busy_time_are_scaled_to_the_latency(index, truth):
    cover = measured_in(index)
    found = from_profiles([observed(arch, truth, busy=1.4) for arch in cover])
    sums = [
        found.overhead_ms + sum(found.blocks[spec].latency_ms for _, spec in each.chain)
        for each in (observed(arch, truth) for arch in SPACE.sample(50, 1))
    ]
    latencies = [observed(arch, truth).latency_ms for arch in SPACE.sample(50, 1)]
    assert np.abs(np.array(sums) / latencies - 1).mean() < 0.03


def test_a_disturbed_node_does_not_shrink_the_sums(index, truth):
    rng = np.random.default_rng(0)
    disturbed = []
    for arch in measured_in(index):
        each = observed(arch, truth)
        hit = str(rng.choice(list(each.blocks_ms)))
        times = {**each.blocks_ms, hit: each.blocks_ms[hit] + 0.3 * each.latency_ms}
        fields = {"chain": each.chain, "latency_ms": each.latency_ms, "nodes": each.nodes}
        disturbed.append(Observed(**fields, blocks_ms=times))
    found = from_profiles(disturbed)
    ratios = [
        (found.overhead_ms + sum(found.blocks[spec].latency_ms for _, spec in each.chain))
        / each.latency_ms
        for each in disturbed
    ]
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)


def test_counts_and_spread_say_how_well_a_spec_is_known(index, truth):
    cover = measured_in(index)
    found = from_profiles([observed(arch, truth) for arch in cover])
    in_subnets = (index.counts(cover) > 0).sum(axis=0)
    assert [found.blocks[spec].count for spec in index.specs] == in_subnets.tolist()
    assert all(0 <= found.blocks[spec].spread_ms < 0.01 for spec in index.specs)


def test_a_block_merged_into_another_still_has_a_latency(truth):
    each = observed(SPACE.smallest()[0], truth)
    times = {**each.blocks_ms, "head": 0.0}
    merged = Observed(
        chain=each.chain, latency_ms=each.latency_ms, blocks_ms=times, nodes=each.nodes
    )
    found = from_profiles([merged])
    assert all(cost.latency_ms > 0 for cost in found.blocks.values())


def test_whole_subnets_predict_others_better_than_their_work(index, truth):
    macs = dict(zip(index.specs, index.macs.tolist(), strict=True))
    cover = covering_subnets(index, index.specs, repeats=3, seed=0)
    seen = [observed(arch, truth, profiled=False) for arch in cover]
    found = from_subnets(seen, macs)
    assert found.method == "least squares"
    assert set(found.blocks) == set(index.specs)
    assert all(cost.latency_ms > 0 for cost in found.blocks.values())
    unseen = SPACE.sample(200, 5)
    latencies = np.array([observed(arch, truth).latency_ms for arch in unseen])
    costs = np.array([found.blocks[spec].latency_ms for spec in index.specs])
    sums = found.overhead_ms + index.counts(unseen) @ costs
    work = np.column_stack([index.counts(unseen) @ index.macs, np.ones(200)])
    straight = work @ np.linalg.lstsq(work, latencies, rcond=None)[0]
    off, off_by_work = (np.abs(p / latencies - 1).mean() for p in (sums, straight))
    assert off < 0.05
    assert off < off_by_work


def test_one_subnet_is_split_by_its_work(index, truth):
    macs = dict(zip(index.specs, index.macs.tolist(), strict=True))
    only = observed(SPACE.largest()[0], truth, profiled=False)
    found = from_subnets([only], macs)
    total = found.overhead_ms + sum(found.blocks[spec].latency_ms for _, spec in only.chain)
    assert total == pytest.approx(only.latency_ms, rel=0.05)
