import numpy as np
import pytest
import torch
from torch import nn

import hwsearch.evaluate.sharing as sharing
from hwsearch.evaluate.recalibrate import norms_of, recalibrate
from hwsearch.evaluate.sharing import Chained, chain_of, recalibrate_together
from hwsearch.supernets.zoo import load_supernet

FAMILIES = ["cifar10-resnet", "ofa-mbv3-w1.0"]


def tiny(family):
    from importlib.metadata import entry_points

    (point,) = entry_points(group="hwsearch.supernets", name=family)
    return point.load().tiny()


@pytest.fixture(scope="module", params=FAMILIES)
def net(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def batches(net):
    (spec,) = net.input_spec(net.space.smallest()[0]).inputs
    rng = np.random.default_rng(0)
    return [{spec.name: rng.standard_normal((n, *spec.shape)).astype(np.float32)} for n in (5, 3)]


def neighbours(net, n, seed=0):
    """Random architectures, and some that begin as others do."""
    rng = np.random.default_rng(seed)
    first = net.space.sample(n, rng)
    return [*first, *net.space.mutate(first, rng)]


def chained(net, archs):
    subnets = [net.subnet(arch) for arch in archs]
    return [
        Chained(subnet=s, blocks=chain_of(s, net.blocks(a), net.recalibrate))
        for s, a in zip(subnets, archs, strict=True)
    ]


def statistics(net, subnet):
    return [b.clone() for norm in norms_of(subnet, net.recalibrate) for b in norm.buffers()]


@pytest.mark.parametrize("budget", [None, 0, 20_000])
def test_every_bit_is_that_of_one_by_one(net, batches, budget):
    archs = neighbours(net, 4)
    chains = chained(net, archs)
    results = recalibrate_together(chains, net.recalibrate, batches, budget)
    for arch, chain, result in zip(archs, chains, results, strict=True):
        alone = recalibrate(net.subnet(arch), net.recalibrate, iter(batches))
        assert 0 < result.share <= 1
        for ours, theirs in zip(
            statistics(net, chain.subnet), statistics(net, alone), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_the_same_subnet_twice_is_run_once(net, batches):
    arch = net.space.largest()[0]
    results = recalibrate_together(chained(net, [arch, arch]), net.recalibrate, batches)
    assert [result.share for result in results] == [0.5, 0.5]


def test_equal_blocks_of_other_weights_share_nothing(net, batches):
    arch = net.space.largest()[0]
    chains = chained(net, [arch, arch])
    with torch.no_grad():
        next(chains[1].subnet.parameters()).add_(0.1)
    results = recalibrate_together(chains, net.recalibrate, batches)
    assert [result.share for result in results] == [1.0, 1.0]


def test_what_fails_takes_only_itself_along(net, batches):
    archs = [net.space.smallest()[0], net.space.largest()[0]]
    chains = chained(net, archs)

    def broken(*_):
        raise ZeroDivisionError("no such layer")

    last = chains[1].blocks[-1].name
    chains[1].subnet.get_submodule(last).forward = broken
    with torch.no_grad():  # so that it is no block of the other one
        next(chains[1].subnet.get_submodule(last).parameters()).add_(0.1)
    results = recalibrate_together(chains, net.recalibrate, batches)
    assert isinstance(results[1], ZeroDivisionError)
    alone = recalibrate(net.subnet(archs[0]), net.recalibrate, iter(batches))
    for ours, theirs in zip(
        statistics(net, chains[0].subnet), statistics(net, alone), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_blocks_that_do_not_hold_all_norms_are_no_chain(net):
    arch = net.space.smallest()[0]
    subnet = net.subnet(arch)
    assert chain_of(subnet, None, net.recalibrate) is None
    subnet.extra = nn.BatchNorm2d(3)
    assert chain_of(subnet, net.blocks(arch), net.recalibrate) is None


def test_memory_is_asked_for_where_no_budget_is_given(net, batches, monkeypatch):
    asked = []
    monkeypatch.setattr(sharing, "available_memory", lambda: asked.append(1) or 1e9)
    recalibrate_together(chained(net, neighbours(net, 1)), net.recalibrate, batches)
    assert asked


def test_the_bundled_supernet_is_a_chain():
    bundled = load_supernet("cifar10-resnet")
    arch = bundled.space.smallest()[0]
    assert chain_of(bundled.subnet(arch), bundled.blocks(arch), bundled.recalibrate)
