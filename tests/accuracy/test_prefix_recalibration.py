"""Recalibrating together gives every subnet what it gets by itself, to the last bit."""

import weakref

import numpy as np
import pytest
import torch
from torch import nn

from hwsearch.accuracy import recalibrate as recalibration
from hwsearch.accuracy.recalibrate import recalibrate, recalibrate_together
from hwsearch.blocks import Block, BlockSpec
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family

NORMS = (nn.BatchNorm2d,)
FAMILIES = ["cifar10-resnet", "ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batches(spec, sizes=(6, 3)):
    rng = np.random.default_rng(0)
    return [
        {spec.inputs[0].name: rng.standard_normal((n, *spec.inputs[0].shape)).astype(np.float32)}
        for n in sizes
    ]


def subnets_of(net, archs):
    return [net.subnet(arch) for arch in archs]


def chains_of(net, archs, subnets):
    return dict(zip(subnets, map(net.blocks, archs), strict=True))


def equal(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


SLOW = FAMILIES[2:]  # seconds each, and built as those before


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES]
)
def net(request):
    net = Supernet(request.param, load_family(request.param).tiny(), "random:0")
    return net if request.param == "cifar10-resnet" else net.restrict(["resolution=max"])


@pytest.mark.parametrize("budget", [None, 0, 40_000])
def test_statistics_are_those_of_each_by_itself(net, budget):
    archs = list(net.space.sample(12, seed=1))
    given = batches(net.input_spec(archs[0]))
    together = subnets_of(net, archs)
    results = recalibrate_together(
        chains_of(net, archs, together), net.recalibrate, iter(given), budget
    )
    assert all(isinstance(seconds, float) for seconds in results)
    for arch, subnet in zip(archs, together, strict=True):
        alone = recalibrate(net.subnet(arch), net.recalibrate, iter(given))
        assert equal(subnet, alone)
        assert not subnet.training
        assert not any(module._forward_pre_hooks for module in subnet.modules())


def test_what_is_shared_is_run_once(net):
    archs = list(net.space.sample(6, seed=2))
    subnets = subnets_of(net, archs)
    chains = chains_of(net, archs, subnets)
    runs = runs_of(chains)
    results = recalibrate_together(
        chains, net.recalibrate, iter(batches(net.input_spec(archs[0])))
    )
    prefixes = {
        tuple((b.name, b.spec) for b in blocks[: end + 1])
        for blocks in chains.values()
        for end in range(len(blocks))
    }
    assert len(runs) == 2 * len(prefixes), "for each of the two batches"
    assert len(prefixes) < sum(map(len, chains.values()))
    assert all(seconds > 0 for seconds in results)


def runs_of(chains):
    """The names of blocks, filled as they are run."""
    runs = []
    for subnet, blocks in chains.items():
        for block in blocks:
            module = subnet.get_submodule(block.name)
            module.register_forward_pre_hook(
                lambda module, args, name=block.name: runs.append(name)
            )
    return runs


class Watched(nn.Sequential):
    """Two convolutions with norms; notes its input's memory."""

    def __init__(self, seed, width=4):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(nn.Conv2d(4, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())


class InPlace(Watched):
    def forward(self, x):
        return super().forward(x.mul_(2))


class Fails(Watched):
    def forward(self, x):
        raise ZeroDivisionError("no such layer")


class Endless(Watched):
    def forward(self, x):
        return super().forward(x * float("inf"))


def chain(*modules):
    """A chain of blocks of one spec: only what is in them tells them apart."""
    spec = BlockSpec(kind="any", hyperparameters=(), input_shape=(4, 8, 8))
    names = [f"block{number}" for number in range(len(modules))]
    subnet = nn.Sequential()
    for name, module in zip(names, modules, strict=True):
        subnet.add_module(name, module)
    return subnet, [Block(name=name, spec=spec, macs=1, params=1) for name in names]


def given(sizes=(5,)):
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((n, 4, 8, 8)).astype(np.float32)} for n in sizes]


def test_equal_specs_of_other_weights_are_not_shared():
    chains = dict(chain(Watched(seed), Watched(7)) for seed in (1, 2, 1))
    runs = runs_of(chains)
    recalibrate_together(chains, NORMS, iter(given()))
    assert sorted(runs) == ["block0", "block0", "block1", "block1"]
    for each, seed in zip(chains, (1, 2, 1), strict=True):
        fresh, _ = chain(Watched(seed), Watched(7))
        assert equal(each, recalibrate(fresh, NORMS, iter(given())))


def test_equal_weights_of_other_settings_are_not_shared():
    other = Watched(1)
    other[1].eps = 0.5
    chains = dict([chain(Watched(1)), chain(other)])
    runs = runs_of(chains)
    recalibrate_together(chains, NORMS, iter(given()))
    assert runs == ["block0", "block0"]


def test_statistics_of_before_make_no_difference():
    used = Watched(1)
    used[1].running_mean.fill_(7)
    used[1].running_var.fill_(float("nan"))
    chains = dict([chain(Watched(1), Watched(2)), chain(used, Watched(3))])
    runs = runs_of(chains)
    recalibrate_together(chains, NORMS, iter(given()))
    assert sorted(runs) == ["block0", "block1", "block1"]
    assert torch.equal(used[1].running_mean, next(iter(chains)).block0[1].running_mean)


def test_an_input_that_is_written_into_is_not_shared_any_more():
    chains = dict(chain(Watched(1), InPlace(seed), Watched(4)) for seed in (2, 3, 4))
    recalibrate_together(chains, NORMS, iter(given((5, 4))))
    for each, seed in zip(chains, (2, 3, 4), strict=True):
        fresh, _ = chain(Watched(1), InPlace(seed), Watched(4))
        assert equal(each, recalibrate(fresh, NORMS, iter(given((5, 4)))))


@pytest.mark.parametrize(
    ("broken", "error", "reason"),
    [(Fails, ZeroDivisionError, "no such layer"), (Endless, Exception, "not finite")],
)
def test_a_block_that_fails_takes_along_those_who_have_it(broken, error, reason):
    chains = dict(
        chain(Watched(1), Each(2), Watched(last))
        for Each, last in ((broken, 3), (Watched, 3), (broken, 4))
    )
    first, second, third = recalibrate_together(chains, NORMS, iter(given((5, 4))))
    assert isinstance(first, error)
    assert reason in str(first)
    assert third is first
    assert isinstance(second, float)
    fresh, _ = chain(Watched(1), Watched(2), Watched(3))
    assert equal(list(chains)[1], recalibrate(fresh, NORMS, iter(given((5, 4)))))


def test_no_batches():
    (result,) = recalibrate_together(dict([chain(Watched(1))]), NORMS, iter([]))
    assert "at least one batch" in str(result)


def test_kept_activations_stay_within_the_budget(monkeypatch):
    """Two levels branch, and each keeps 5 x 4 x 8 x 8 numbers for those that follow."""
    one = 5 * 4 * 8 * 8 * 4
    chains = dict(
        chain(Watched(1), Watched(a), Watched(10 + a), Watched(100 * a + b), Watched(5))
        for a in (1, 2)
        for b in (1, 2)
    )
    outputs, most = [], {}

    def run(self, pool, real=recalibration.SynchronisedRun.run):
        (output,) = real(self, pool)
        outputs.append(weakref.ref(output))
        alive.append(sum(each() is not None for each in outputs))
        return [output]

    monkeypatch.setattr(recalibration.SynchronisedRun, "run", run)
    for budget in (0, 1, 2):
        alive = []
        recalibrate_together(chains, NORMS, iter(given()), budget * one)
        most[budget] = max(alive)
    # Besides what is kept there are the input and the output of what runs.
    assert most == {0: 2, 1: 3, 2: 4}


def test_memory_is_asked_for_where_no_budget_is_given(monkeypatch):
    asked = []
    monkeypatch.setattr(recalibration, "available_memory_bytes", lambda: asked.append(1) or 1e9)
    recalibrate_together(dict([chain(Watched(1))]), NORMS, iter(given()))
    assert asked == [1]


class TestNoChain:
    """Subnets whose blocks do not hold all norms, each once, are run as a whole."""

    def run(self, make):
        """Recalibrate two equal subnets; return the runs of the whole ones."""
        chains = dict(make() for _ in range(2))
        runs = []
        for subnet in chains:
            subnet.register_forward_pre_hook(lambda module, args: runs.append(module))
        recalibrate_together(chains, NORMS, iter(given()))
        for subnet in chains:
            fresh, _ = make()
            assert equal(subnet, recalibrate(fresh, NORMS, iter(given())))
        return len(runs)

    def test_norms_outside_of_the_blocks(self):
        def make():
            subnet, blocks = chain(Watched(1), Watched(2))
            return subnet, blocks[:1]

        assert self.run(make) == 2

    def test_a_norm_in_two_blocks(self):
        def make():
            subnet, blocks = chain(Watched(1), Watched(2))
            subnet.block1[1] = subnet.block0[1]
            return subnet, blocks

        assert self.run(make) == 2

    @pytest.mark.parametrize("blocks", [None, []])
    def test_no_blocks(self, blocks):
        assert self.run(lambda: (chain(Watched(1))[0], blocks)) == 2

    def test_a_chain_is_not_run_as_a_whole(self):
        assert self.run(lambda: chain(Watched(1))) == 0

    def test_no_norms(self):
        def never():
            raise AssertionError("asked for a batch")
            yield

        subnet, blocks = chain(Watched(1))
        assert recalibrate_together({subnet.train(): blocks}, (), never()) == [0]
        assert not subnet.training
