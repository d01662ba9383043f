"""A model assembled from blocks is the traced one."""

from collections import OrderedDict

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from hwsearch import to_onnx
from hwsearch.blocks import Block, BlockSpec
from hwsearch.models.agreement import disagreement, probe_inputs
from hwsearch.models.artifact import read_card
from hwsearch.models.assemble import GRAPHS
from hwsearch.models.batch_norm_folding import drop_identities, fold_batch_norms
from hwsearch.models.exported_module import ExportedModule
from hwsearch.models.onnx_file import read_metadata
from hwsearch.models.trace import trace
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import OWED, load_family, supernet_names
from hwsearch.verify.subnet import verify_export
from tests.models.conftest import write_artifact
from tests.models.networks import IMAGE, One, promised, with_statistics as random_statistics

CHAINS = [name for name in supernet_names() if load_family(name).tiny().blocks is not None]
CHAINS = [name for name in CHAINS if name not in ("test-tokens", "ofa-mbv3-w1.2")]
TRACES = True


def tiny(name):
    return Supernet(name, load_family(name).tiny(), "random:0")


@pytest.fixture(scope="module", params=CHAINS)
def chain(request):
    """A supernet whose traces several tests share."""
    return tiny(request.param)


def traced(net, arch, subnet):
    """The reference: the whole subnet traced, its norms folded."""
    model = ir.from_proto(trace(subnet, net.input_spec(arch)))
    drop_identities(model.graph)
    fold_batch_norms(model.graph)
    return ir.to_proto(model)


def with_statistics(subnet, seed):
    """Give every norm statistics of its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in subnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 10)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return subnet


def answers(device, model, inputs, folder):
    path = folder / "model.onnx"
    onnx.save(model, path)
    (outputs,) = device.run(path, [inputs])
    return outputs


def test_it_is_the_traced_model(chain, device, tmp_path):
    net = chain
    for number, arch in enumerate(net.full_space.sample(3, seed=5)):
        subnet = with_statistics(net.subnet(arch), number)
        ours, reference = to_onnx(net, arch, subnet), traced(net, arch, subnet)
        onnx.checker.check_model(ours, full_check=True)
        assert read_metadata(ours)["graph"] == "assembled from blocks"
        assert [n.op_type for n in ours.graph.node] == [n.op_type for n in reference.graph.node]
        inputs = probe_inputs(net.input_spec(arch).inputs)
        a = answers(device, ours, inputs, tmp_path)
        b = answers(device, reference, inputs, tmp_path)
        assert disagreement(a, b) <= 1e-5


def test_subnets_never_see_each_others_weights():
    """Interleaved exports give the bytes that each would give alone."""
    family = load_family("test-images")
    nets = [Supernet("x", family.tiny(seed), "random:0") for seed in (1, 2)]
    archs = nets[0].space.sample(3, seed=1)
    alone = {
        (number, arch.key): to_onnx(
            Supernet("x", family.tiny(number + 1), "random:0"), arch
        ).SerializeToString(deterministic=True)
        for number in (0, 1)
        for arch in archs
    }
    assert len(set(alone.values())) == 6
    for arch in archs:
        for number, net in enumerate(nets):
            model = to_onnx(net, arch)
            assert model.SerializeToString(deterministic=True) == alone[number, arch.key]
    subnet = nets[0].subnet(archs[0])
    before = to_onnx(nets[0], archs[0], subnet)
    kept = before.SerializeToString(deterministic=True)
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.zero_()
    assert before.SerializeToString(deterministic=True) == kept


def test_what_is_no_chain_is_traced_and_says_so():
    net = tiny("test-tokens")
    model = to_onnx(net, net.space.smallest()[0])
    assert read_metadata(model)["graph"] == "traced as a whole: it is no chain of blocks"


def test_block_with_numbers_of_its_own_is_traced():
    """What a block computes from its weights in Python would go stale in a kept graph."""

    class Scaled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.scale = inner.weight.detach().mean(dim=(1, 2, 3)).numpy()

        def forward(self, x):
            return self.inner(x) * torch.tensor(self.scale).view(1, -1, 1, 1)

    class Stubborn:
        def __init__(self, network):
            self.network = network
            self.space, self.card, self.digest = network.space, network.card, network.digest
            self.recalibrate, self.defaults = network.recalibrate, network.defaults
            self.input_spec, self.blocks = network.input_spec, network.blocks

        def subnet(self, arch):
            subnet = self.network.subnet(arch)
            subnet.stem.conv = Scaled(subnet.stem.conv)
            return subnet

    net = Supernet("x", Stubborn(load_family("ofa-mbv3-w1.0").tiny()), "random:0")
    arch = net.space.smallest()[0]
    model = to_onnx(net, arch)
    graph = read_metadata(model)["graph"]
    assert graph == "traced as a whole: block stem holds numbers that are no tensor of it"
    reference = traced(net, arch, net.subnet(arch))
    assert [n.op_type for n in model.graph.node] == [n.op_type for n in reference.graph.node]


@pytest.mark.parametrize(("name", "of_this_size"), [("ofa-mbv3-w1.0", 0), ("ofa-resnet50", 1)])
def test_graphs_are_kept_for_every_input_size(name, of_this_size):
    """Only the last one is kept for one size: it says the output's shape."""
    net = tiny(name)
    small, large = (
        net.full_space.architectures([{**net.full_space.largest()[0], "resolution": side}])[0]
        for side in (24, 32)
    )
    to_onnx(net, large)
    kept = len(net.caches[GRAPHS])
    model = to_onnx(net, small)
    assert len(net.caches[GRAPHS]) == kept + of_this_size
    inputs = probe_inputs(net.input_spec(small).inputs)
    assert inputs["image"].shape == (2, 3, 24, 24)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [0, 3, 24, 24]
    assert np.prod([d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]) == 0


def optimised(model, folder):
    """The operators that ONNX Runtime makes of a model; it lays out branches in any order."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # it warns that the file is for this processor
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    return sorted(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_onnx_runtime_makes_the_same_of_it_as_of_the_traced_model(chain, tmp_path):
    net = chain
    for number, arch in enumerate(net.full_space.sample(1, seed=7)):
        subnet = with_statistics(net.subnet(arch), number)
        ours = optimised(to_onnx(net, arch, subnet), tmp_path)
        assert ours == optimised(traced(net, arch, subnet), tmp_path)
        assert "BatchNormalization" not in ours


class PreActivation(nn.Module):
    """Its norm follows a sum, which no convolution can take it into."""

    def __init__(self, width):
        super().__init__()
        self.bn = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.conv(self.bn(x).relu())


class PreActivated(One):
    """A chain: a stem with a norm of its own, and two blocks that begin with one."""

    def blocks(self, arch):
        stem = BlockSpec(kind="stem", hyperparameters=(), input_shape=(3, 8, 8))
        pre = BlockSpec(kind="pre", hyperparameters=(), input_shape=(4, 8, 8))
        return [
            Block(name="stem", spec=stem, macs=4 * 27 * 64, params=4 * 27 + 8),
            Block(name="block1", spec=pre, macs=4 * 36 * 64, params=4 * 36 + 8),
            Block(name="block2", spec=pre, macs=4 * 36 * 64, params=4 * 36 + 8),
        ]


@pytest.fixture
def pre_activated():
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    chain = OrderedDict(stem=stem, block1=PreActivation(4), block2=PreActivation(4))
    module = random_statistics(nn.Sequential(chain))
    net = Supernet("pre", PreActivated(module, IMAGE), None)
    arch = net.space.largest()[0]
    return net, ExportedModule(arch=arch, subnet=module, model=to_onnx(net, arch))


def test_pre_activation_norm_stays_and_the_file_says_so(pre_activated, device, tmp_path):
    net, exported = pre_activated
    operators = [node.op_type for node in exported.model.graph.node]
    assert operators == ["Conv", "Relu", *["BatchNormalization", "Relu", "Conv", "Add"] * 2]
    stated = read_metadata(exported.model)
    assert stated["graph"] == "assembled from blocks"
    assert stated["unfolded_norms"] == "2"
    write_artifact(tmp_path / "subnet", net, exported)
    card = read_card(tmp_path / "subnet")
    assert (card["graph"], card["unfolded_norms"]) == ("assembled from blocks", 2)
    samples = probe_inputs(IMAGE.inputs, seed=3)
    costs = promised(net, exported.arch)
    verified = verify_export(tmp_path / "subnet", exported, costs, samples, device)
    assert verified["disagreement"] < 1e-5


def test_folded_norms_are_none_that_stay(exported_of):
    assert read_metadata(exported_of("test-images")[1].model)["unfolded_norms"] == "0"


def test_the_module_makes_no_difference_to_the_bytes(chain):
    net = chain
    archs = [*net.full_space.sample(2, seed=4), net.space.smallest()[0], net.space.largest()[0]]
    for arch in archs:
        without = to_onnx(net, arch).SerializeToString(deterministic=True)
        given = to_onnx(net, arch, net.subnet(arch)).SerializeToString(deterministic=True)
        assert without == given


def test_no_module_is_built_once_the_blocks_are_known(monkeypatch):
    net = tiny("ofa-mbv3-w1.0")
    archs = list(net.space.sample(3, seed=5))
    expected = [to_onnx(net, arch) for arch in archs]
    monkeypatch.setattr(type(net.network), "subnet", None)
    assert [to_onnx(net, arch) for arch in archs] == expected


def test_a_family_that_gives_no_tensors_is_exported_through_its_module():
    class Owed:
        def __init__(self, network):
            for name in (*OWED, "defaults"):
                setattr(self, name, getattr(network, name))

    net = tiny("ofa-mbv3-w1.0")
    arch = net.space.sample(1, seed=6)[0]
    plain = Supernet(net.name, Owed(net.network), net.checkpoint)
    assert plain.tensors(arch) is None
    assert to_onnx(plain, arch) == to_onnx(net, arch)
