"""Every subnet of ours is the original code's, to the last weight.

`pytest -m "peer and not slow"` compares 20 random architectures of each family, `-m peer` 200 too.
"""

import re
import sys

import numpy as np
import pytest
import torch

from hwsearch import load_device, load_supernet, to_onnx
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.errors import InputError
from hwsearch.models.agreement import disagreement
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.supernets.module_costs import module_costs
from tests.peers.originals import NAMES, active_subnet, original

pytest.importorskip("ofa", reason="the original once-for-all code is not installed (extra 'test')")

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]
SIDE = 128
TOLERANCE = 1e-4
ONNX_TOLERANCE = 1e-3
each_family = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Checkpoints as the original code writes them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in NAMES:
        torch.save({"state_dict": original(name).state_dict()}, folder / name)
    return folder


@pytest.fixture(scope="module")
def nets(checkpoints):
    return {
        name: load_supernet(name, str(checkpoints / name)).restrict(freeze=[f"resolution={SIDE}"])
        for name in NAMES
    }


def some(net, n):
    """Smallest, largest and random ones."""
    space = net.space
    ends = [space.smallest()[0], space.largest()[0]]
    return [*ends, *space.sample(n - 2, seed=0)]


@each_family
def test_checkpoints_have_the_published_size(name):
    keys, millions = NAMES[name]
    net = original(name)
    assert len(net.state_dict()) == keys
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def compare(net, name, archs, tmp_path):
    """Compare architectures with the original's; return the largest deviations seen."""
    batch = net.space.architectures(archs)
    macs, params = net.exact("macs", batch), net.exact("params", batch)
    configs = net.space.to_ofa(batch)
    assert net.space.from_ofa(configs) == batch
    images = {"image": np.random.default_rng(1).standard_normal((2, 3, SIDE, SIDE), np.float32)}
    device = load_device("ort-cpu:threads=2")
    worst, worst_onnx = 0.0, 0.0
    for number, (arch, config) in enumerate(zip(archs, configs, strict=True)):
        theirs = active_subnet(name, {k: v for k, v in config.items() if k != "r"})
        reference = torch_outputs(theirs, images)
        subnet = net.subnet(arch)
        worst = max(worst, disagreement(torch_outputs(subnet, images), reference))
        spec = net.input_spec(arch).inputs
        assert module_costs(theirs, spec) == (macs[number], params[number]), config
        path = tmp_path / "model.onnx"
        path.write_bytes(to_onnx(net, arch, subnet).SerializeToString())
        (outputs,) = device.run(path, [images])
        worst_onnx = max(worst_onnx, disagreement(outputs, reference))
    device.close()
    assert worst <= TOLERANCE
    assert worst_onnx <= ONNX_TOLERANCE
    return worst, worst_onnx


@each_family
def test_subnets_are_the_same_networks(name, nets, tmp_path):
    compare(nets[name], name, some(nets[name], 20), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_family
def test_two_hundred_subnets_are_the_same_networks(name, nets, tmp_path, capsys):
    worst, onnx = compare(nets[name], name, some(nets[name], 200), tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: 200 subnets, deviation {worst:.1e}, of ONNX {onnx:.1e}\n")


LEGACY = {
    "inverted": lambda key: re.sub(r"(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", key),
    "unwrapped": lambda key: (
        key.replace(".bn.bn.", ".bn.")
        .replace(".conv.conv.weight", ".conv.weight")
        .replace(".linear.linear.", ".linear.")
    ),
    "wrapped": lambda key: re.sub(r"^(final_expand_layer|first_conv)\.bn\.", r"\1.bn.bn.", key),
}


@pytest.mark.parametrize("age", LEGACY)
@each_family
def test_legacy_names_load(name, age, nets, tmp_path):
    state = original(name).state_dict()
    legacy = {LEGACY[age](key): tensor for key, tensor in state.items()}
    assert len(legacy) == len(state)
    torch.save({"state_dict": legacy}, tmp_path / "legacy")
    assert load_supernet(name, str(tmp_path / "legacy")).digest == nets[name].digest


@each_family
def test_another_family_says_which_one_it_looks_like(name, checkpoints):
    other = next(each for each in NAMES if each != name)
    with pytest.raises(InputError, match=f"It looks like '{re.escape(name)}'") as caught:
        load_supernet(other, str(checkpoints / name))
    assert f"is not of supernet '{other}'" in str(caught.value)


@each_family
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_recalibration_gives_the_original_statistics(name, nets, dtype, tolerance):
    """In double precision it is the same method; in single precision rounding grows with depth."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    net = nets[name]
    arch = net.space.sample(1, seed=3)[0]
    (config,) = net.space.to_ofa(net.space.architectures([arch]))
    theirs = active_subnet(name, {k: v for k, v in config.items() if k != "r"})
    ours = net.subnet(arch)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((n, 3, SIDE, SIDE)).astype(dtype) for n in (6, 6, 3)]
    if dtype == np.float64:
        ours, theirs = ours.double(), theirs.double()
    set_running_statistics(theirs, [(torch.from_numpy(b), None) for b in batches])
    recalibrate(ours, net.recalibrate, ({"image": b} for b in batches))
    mine, reference = norms(ours), norms(theirs)
    assert len(mine) == len(reference) > 20
    deviations = [
        disagreement(statistics(a), statistics(b)) for a, b in zip(mine, reference, strict=True)
    ]
    assert max(deviations) <= tolerance
    images = {"image": batches[0]}
    assert disagreement(torch_outputs(ours, images), torch_outputs(theirs, images)) <= TOLERANCE


def statistics(norm):
    return [norm.running_mean.numpy(), norm.running_var.numpy()]


def norms(network):
    return [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
