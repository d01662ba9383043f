"""A family out of standard pieces, as a newcomer would write one."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hwsearch import SearchSpace, load_supernet
from hwsearch.errors import InputError
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.supernets.builder import ChainFamily, Design, elastic_stage
from hwsearch.supernets.checkpoints import leading_weights
from hwsearch.supernets.conv_blocks import Classifier, Conv, InvertedResidual, make_divisible
from hwsearch.supernets.interface import InputSpec, TensorSpec
from hwsearch.supernets.zoo import load_family

WIDTHS = {"stage1": 8, "stage2": 16}


def chain(arch):
    yield "stem", Conv(out=8)
    for stage, width in WIDTHS.items():
        for block in range(1, arch[f"{stage}.depth"] + 1):
            yield (
                f"{stage}.block{block}",
                InvertedResidual(
                    out=width,
                    kernel=arch[f"{stage}.block{block}.kernel"],
                    expand=arch[f"{stage}.block{block}.expand"],
                    stride=2 if block == 1 else 1,
                ),
            )
    yield "head", Classifier(classes=3)


def design(**changes):
    choices = [
        choice
        for stage in WIDTHS
        for choice in elastic_stage(stage, (1, 2), kernel=(3, 5, 7), expand=(1, 2, 3))
    ]
    spec = InputSpec(
        inputs=(TensorSpec(name="image", shape=(3, 16, 16)),), classes=("a", "b", "c")
    )
    settings = {"space": SearchSpace(choices), "chain": chain, "input_spec": lambda _: spec}
    return Design(**(settings | changes))


def family(**changes):
    return ChainFamily(name="mine", summary="for tests", design=design(**changes), small=design())


@pytest.fixture(scope="module")
def net():
    return family().load("random:0")


def test_stage_choices():
    names = {c.name: c.active for c in elastic_stage("s", (1, 2), base=1, kernel=(3, 5))}
    assert names == {
        "s.depth": None,
        "s.block1.kernel": None,
        "s.block2.kernel": None,
        "s.block3.kernel": ("s.depth", (2,)),
    }
    assert [c.name for c in elastic_stage("s", (1,), width=(4, 8))] == ["s.block1.width"]


def test_weights_are_shared_by_name(net):
    large = dict(net.subnet(net.space.largest()[0]).named_parameters())
    small = net.subnet(net.space.smallest()[0])
    for name, parameter in small.named_parameters():
        full = large[name]
        if parameter.shape[2:] != full.shape[2:]:
            full = full[:, :, 2:-2, 2:-2]
        expected = full[tuple(slice(size) for size in parameter.shape)]
        assert torch.equal(expected, parameter), name
        assert parameter.requires_grad


def test_subnets_share_no_hooks(net):
    arch = net.space.largest()[0]
    first, second = net.subnet(arch), net.subnet(arch)
    called = []
    first.stage2.block2.project.register_forward_hook(lambda *_: called.append(1))
    first.train()
    image = torch.zeros(2, 3, 16, 16)
    second(image)
    assert not called
    assert not second.stage2.block2.project.training
    first(image)
    assert called == [1]


def test_equal_blocks_are_separate_modules():
    """Blocks of one spec come from one template, and must not be one module."""

    def twice(arch):
        yield "stem", Conv(out=8)
        yield "a", Conv(out=8)
        yield "b", Conv(out=8)
        yield "head", Classifier(classes=3)

    network = family(chain=twice).load("random:0")
    subnet = network.subnet(network.space.smallest()[0])
    assert not torch.equal(subnet.a.conv.weight, subnet.b.conv.weight)
    called = []
    subnet.a.bn.register_forward_hook(lambda *_: called.append(1))
    subnet(torch.zeros(2, 3, 16, 16))
    assert called == [1]


def test_learned_kernels_are_chained():
    network = family(kernels=(3, 5, 7)).load("random:0")
    key = "stage2.block2.depthwise.conv"
    generator = torch.Generator().manual_seed(0)
    for large, small in ((7, 5), (5, 3)):
        matrix = network.state[f"{key}.{large}to{small}_matrix"]
        assert torch.equal(matrix, torch.eye(small**2))
        matrix.copy_(torch.randn(matrix.shape, generator=generator))
    mapping = {**network.space.largest()[0], "stage2.block2.kernel": 3, "stage2.block2.expand": 2}
    arch = network.space.architectures([mapping])[0]
    found = network.subnet(arch).get_parameter(f"{key}.weight").detach().numpy()
    full = network.state[f"{key}.weight"].numpy()[:32]
    five = full[:, 0, 1:6, 1:6].reshape(32, 25) @ network.state[f"{key}.7to5_matrix"].numpy().T
    three = five.reshape(32, 5, 5)[:, 1:4, 1:4].reshape(32, 9)
    three = three @ network.state[f"{key}.5to3_matrix"].numpy().T
    np.testing.assert_allclose(found.reshape(32, 9), three, rtol=1e-5, atol=1e-6)


def test_kernel_without_a_matrix_is_the_centre():
    kernel = torch.arange(49.0).reshape(1, 1, 7, 7)
    conv = torch.nn.Conv2d(1, 1, 3, bias=False)
    cut = leading_weights({"weight": kernel}, conv)["weight"]
    assert torch.equal(cut, kernel[:, :, 2:5, 2:5])


def test_blocks_say_what_decides_their_cost(net):
    arch = net.space.largest()[0]
    blocks = net.blocks(arch)
    assert [block.name for block in blocks][:3] == ["stem", "stage1.block1", "stage1.block2"]
    block = blocks[2]
    assert block.spec.kind == "inverted_residual"
    assert block.spec.input_shape == (8, 8, 8)
    assert dict(block.spec.hyperparameters)["kernel"] == 7
    assert block.macs == 64 * (24 * 8 + 49 * 24 + 8 * 24)
    assert block.params == 24 * 8 + 49 * 24 + 8 * 24 + 2 * (24 + 24 + 8)


def test_checkpoint_goes_there_and_back(net, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(net.state, path)
    again = family().load(str(path))
    assert again.digest == net.digest
    assert again.card.source == "file mine.safetensors"
    arch = net.space.sample(1, seed=0)[0]
    inputs = probe_inputs(net.input_spec(arch).inputs)
    np.testing.assert_array_equal(
        torch_outputs(net.subnet(arch), inputs)[0], torch_outputs(again.subnet(arch), inputs)[0]
    )


def test_statistics_of_a_checkpoint_are_inherited():
    network = family(statistics=True).load("random:0")
    network.state["stage1.block1.project.bn.running_mean"].fill_(3.0)
    subnet = network.subnet(network.space.smallest()[0])
    assert subnet.get_buffer("stage1.block1.project.bn.running_mean").eq(3.0).all()
    assert "stem.bn.running_var" not in family().load("random:0").state


def test_family_without_weights_says_what_to_give():
    with pytest.raises(
        InputError, match=r"'mine' ships no weights: give a checkpoint, or random:0"
    ):
        family().load(None)
    with pytest.raises(InputError, match=r"published as ofa_mbv3_d234_e346_k357_w1\.0"):
        load_supernet("ofa-mbv3-w1.0")


def test_fit_tells_families_apart(net):
    fit = family().fit(net.state)
    assert fit.exact
    assert fit.share == 1
    wider = load_family("ofa-mbv3-w1.2")
    state = load_family("ofa-mbv3-w1.0").load("random:0").state
    assert not wider.fit(state).exact
    assert not wider.fit(state).missing
    assert 0 < wider.fit(state).share < 1


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (11, 16), (12, 16), (17, 16), (18, 24), (19.2, 24), (90, 88)]
)
def test_channels_are_rounded_to_eights(channels, rounded):
    assert make_divisible(channels) == rounded
