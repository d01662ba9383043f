"""The groups of channels are those that torch-pruning finds, where it runs."""

import pytest
import torch
from torch import nn

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.pytorch.module import read_module
from tests.elastic.miniature_modules import DenseNet, MobileNet, ResidualNet, image, trained

pytestmark = pytest.mark.peer
MODELS = ("resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "densenet121")


def peer_partition(module, inputs):
    """Layers whose outputs torch-pruning removes together."""
    pruning = pytest.importorskip("torch_pruning")
    graph = pruning.DependencyGraph().build_dependency(module, example_inputs=inputs)
    names = {each: name for name, each in module.named_modules()}
    layers = (nn.Conv2d, nn.Linear)
    found = set()
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        members = {
            names[dependency.target.module]
            for dependency, _ in group
            if isinstance(dependency.target.module, layers)
            and dependency.handler in (
                pruning.prune_conv_out_channels, pruning.prune_linear_out_channels,
                pruning.prune_depthwise_conv_out_channels,
            )
        }  # fmt: skip
        found.add(frozenset(members))
    return found


def own_partition(module, inputs):
    structure = analyse(read_module(module, inputs))
    origins = structure.graph.origins
    found = set()
    for group in structure.groups:
        members = {
            origins[slot.weight].name.removesuffix(".weight")
            for slot in group.slots
            if slot.role in ("out", "through") and origins[slot.weight].name.endswith(".weight")
        }
        layers = {
            name
            for name in members
            if isinstance(module.get_submodule(name), (nn.Conv2d, nn.Linear))
        }
        if layers:
            found.add(frozenset(layers))
    return found


@pytest.mark.parametrize("build", [ResidualNet, MobileNet, DenseNet])
def test_partition_of_miniatures(build):
    module = trained(build)
    last = frozenset({"head"})  # its outputs are the model's
    assert own_partition(module, image()) == peer_partition(module, image()) - {last}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MODELS)
def test_partition_of_published_architectures(name):
    models = pytest.importorskip("torchvision.models")
    module = models.get_model(name, weights=None).eval()
    inputs = torch.randn(1, 3, 224, 224)
    names = [n for n, each in module.named_modules() if isinstance(each, nn.Linear)]
    last = frozenset({names[-1]})
    assert own_partition(module, inputs) == peer_partition(module, inputs) - {last}
