"""Every registered family: it introduces itself, and its miniature does what it owes."""

import numpy as np
import pytest
import torch

from hwsearch.errors import InputError
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family, load_supernet, supernet_names
from hwsearch.testing import CHECKS, Examined, check_supernet

pytestmark = pytest.mark.parametrize("name", supernet_names())


@pytest.fixture(scope="module")
def examined():
    """The miniature of each family, with what checks share."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = Examined(Supernet(name, load_family(name).tiny(), "random:0"))
        return made[name]

    return get


def answers(net, arch):
    return torch_outputs(net.subnet(arch), probe_inputs(net.input_spec(arch).inputs))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_contract(name, check, examined):
    check(examined(name))


def test_family_introduces_itself(name, examined):
    family, net = load_family(name), examined(name).net
    assert family.name == net.card.name == name
    assert family.summary
    assert name in repr(net)


def test_exact_costs_grow_with_the_network(name, examined):
    net = examined(name).net
    for quantity in ("macs", "params", "bytes"):
        smallest, largest = (net.exact(quantity, a)[0] for a in (
            net.space.smallest(), net.space.largest()
        ))  # fmt: skip
        assert 0 < smallest < largest
        assert net.exact(quantity, net.space.largest()[:0]).shape == (0,)
    with pytest.raises(InputError, match=r"unknown exact quantity 'mac'.*Did you mean 'macs'"):
        net.exact("mac", net.space.largest())


def test_equal_space_is_the_same_space(name, examined):
    net, other = examined(name).net, Supernet(name, load_family(name).tiny())
    arch = other.space.largest()[0]
    np.testing.assert_array_equal(answers(net, arch)[0], answers(other, arch)[0])


def test_seed_decides_the_weights(name):
    family = load_family(name)
    first, again, other = family.tiny(3), family.tiny(3), family.tiny(4)
    assert first.digest == again.digest != other.digest
    arch = first.space.largest()[0]
    nets = [Supernet(name, network) for network in (first, again, other)]
    a, b, c = (answers(net, arch)[0] for net in nets)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4


def test_loading_leaves_the_global_seed_alone(name):
    before = torch.get_rng_state()
    load_family(name).tiny(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_full_size_loads_from_a_seed(name):
    net = load_supernet(name, "random:0")
    assert net.checkpoint == "random:0"
    assert np.isfinite(answers(net, net.space.smallest()[0])[0]).all()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_full_size_keeps_its_promises(name):
    check_supernet(load_supernet(name, "random:0"))
