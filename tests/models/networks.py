"""Supernets around any network, for what the families at hand do not have in them."""

from dataclasses import dataclass

import torch
from torch import nn

from hwsearch.models.export import to_onnx
from hwsearch.models.exported_module import ExportedModule
from hwsearch.space import Choice, SearchSpace
from hwsearch.supernets.interface import Card, InputSpec, TensorSpec
from hwsearch.supernets.supernet import Supernet

IMAGE = InputSpec(inputs=(TensorSpec(name="picture", shape=(3, 8, 8)),), outputs=("scores",))
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass
class One:
    """A supernet with one subnet."""

    module: nn.Module
    spec: InputSpec
    space: SearchSpace = SearchSpace([Choice("only", (1,))])  # noqa: RUF009 - never changed
    card: Card = Card(  # noqa: RUF009 - frozen
        name="one", description="One.", licence="none", source="none"
    )
    digest: str = "0" * 64
    recalibrate = NORMS

    def subnet(self, arch):
        return self.module

    def input_spec(self, arch):
        return self.spec

    def blocks(self, arch):
        return None


def with_statistics(module, seed=0):
    """Give every batch norm other numbers than the ones it starts with."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, NORMS):
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            if norm.affine:
                nn.init.normal_(norm.weight, generator=generator)
                nn.init.normal_(norm.bias, generator=generator)
    return module.eval()


def export(module, spec=IMAGE):
    """The network as the only subnet of a supernet."""
    net = Supernet("one", One(with_statistics(module), spec))
    arch = net.space.largest()[0]
    return net, ExportedModule(arch=arch, subnet=net.subnet(arch), model=to_onnx(net, arch))


def promised(net, arch):
    one = net.space.architectures([arch])
    return {name: int(net.exact(name, one)[0]) for name in ("macs", "params")}
