"""Random architectures of every family's miniature; `tools/check_agreement.py` tries more."""

import pytest
from check_agreement import FAMILIES, agreements, passed

from hwsearch.devices import load_device
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family

N = 10  # fifty in all


@pytest.fixture(scope="module")
def device():
    device = load_device("ort-cpu:threads=1")
    yield device
    device.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FAMILIES)
def test_random_architectures_agree(name, device):
    net = Supernet(name, load_family(name).tiny(), "random:0")
    lines = list(agreements(net, net.space.sample(N, seed=1), device))
    assert len(lines) == N
    assert [line for line in lines if not passed(line)] == []


def test_one_that_does_not_agree_is_seen(device, monkeypatch):
    net = Supernet("cifar10-resnet", load_family("cifar10-resnet").tiny(), "random:0")
    monkeypatch.setattr("check_agreement.torch_outputs", lambda *given: [])
    (line,) = agreements(net, net.space.smallest(), device)
    assert not passed(line)
