"""A small family that does what it owes, and many that do not: one thing is wrong with each."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from hwsearch.blocks import Block, BlockSpec
from hwsearch.space import Choice, SearchSpace
from hwsearch.supernets.checkpoints import leading_weights, parameter_digest
from hwsearch.supernets.interface import Card, ImagePreprocessing, InputSpec, TensorSpec
from hwsearch.supernets.module_costs import module_costs

SIDE, CLASSES = 6, ("circle", "square", "star")


class Layer(nn.Module):
    def __init__(self, in_, out, kernel=3):
        super().__init__()
        self.conv = nn.Conv2d(in_, out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Head(nn.Module):
    n_outputs = len(CLASSES)

    def __init__(self, in_):
        super().__init__()
        self.linear = nn.Linear(in_, self.n_outputs)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


class Sound:
    """Convolutions of elastic width, number and kernel, one after another."""

    layer, head = Layer, Head
    known = {}  # noqa: RUF012 - costs, by type of module and spec
    recalibrate = (nn.BatchNorm2d,)
    choices = (
        Choice("width", (4, 6, 8)),
        Choice("depth", (1, 2)),
        Choice("layer1.kernel", (1, 3)),
        Choice("layer2.kernel", (1, 3), active=("depth", (2,))),
    )
    card = Card(name="sound", description="For tests.", licence="none", source="random:0")

    def __init__(self):
        self.space = SearchSpace(self.choices)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = self.build(self.space.largest()[0]).named_parameters()
        self.state = {name: parameter.detach() for name, parameter in state}
        self.digest = parameter_digest(self.state)

    def build(self, arch):
        width = arch["width"]
        layers = {"stem": self.layer(3, width)}
        for i in range(1, arch["depth"] + 1):
            layers[f"layer{i}"] = self.layer(width, width, arch[f"layer{i}.kernel"])
        return nn.Sequential(OrderedDict(layers, head=self.head(width)))

    def subnet(self, arch):
        with torch.device("meta"):
            network = self.build(arch)
        weights = leading_weights(self.state, network)
        network.load_state_dict(weights, assign=True)
        return network.eval()

    def input_spec(self, arch):
        crop = ImagePreprocessing(resize=SIDE, crop=SIDE, mean=(0.5,) * 3, std=(0.2,) * 3)
        picture = TensorSpec(name="picture", shape=(3, SIDE, SIDE))
        return InputSpec(inputs=(picture,), preprocessing=crop, classes=CLASSES)

    def blocks(self, arch):
        chain, channels = [], 3
        for name, module in self.subnet(arch).named_children():
            shape = (channels, SIDE, SIDE)
            channels = arch["width"]
            kernel = arch.get(f"{name}.kernel", 3)
            spec = BlockSpec(
                kind=type(module).__name__,
                hyperparameters=(("kernel", kernel), ("out", channels)),
                input_shape=shape,
            )
            if (type(module), spec) not in self.known:
                cost = module_costs(module, [TensorSpec(name="x", shape=shape)])
                self.known[type(module), spec] = cost
            macs, params = self.known[type(module), spec]
            chain.append(Block(name=name, spec=spec, macs=macs, params=params))
        return chain


class Plain(Sound):
    """No chain, nothing to recalibrate."""

    recalibrate = ()

    class layer(Layer):  # noqa: N801 - a member like the others
        def __init__(self, in_, out, kernel=3):
            super().__init__(in_, out, kernel)
            self.bn = nn.Identity()

    def blocks(self, arch):
        return None


class Nameless(Sound):
    digest = property(lambda self: "version 1", lambda self, value: None)
    card = Card(name="nameless", description="For tests.", licence="", source="random:0")


class Blockless(Sound):
    blocks = property()


class Padded(Sound):
    def input_spec(self, arch):
        spec = super().input_spec(arch)
        return replace(spec, preprocessing=replace(spec.preprocessing, crop=SIDE + 2))


class ArrayShaped(Sound):
    def input_spec(self, arch):
        (picture,) = super().input_spec(arch).inputs
        shape = tuple(np.array(picture.shape))
        return InputSpec(inputs=(replace(picture, shape=shape),))


class Trained(Sound):
    def subnet(self, arch):
        return super().subnet(arch).train()


class Wide(Sound):
    def subnet(self, arch):
        return super().subnet(arch).double()


class Crashing(Sound):
    def subnet(self, arch):
        if arch["width"] == 8:
            raise IndexError("no more channels")
        return super().subnet(arch)


class Overfull(Sound):
    class head(Head):  # noqa: N801
        n_outputs = len(CLASSES) + 1


class Lenient(Sound):
    def __init__(self):
        super().__init__()
        self.space = LenientSpace(self.choices)


class LenientSpace(SearchSpace):
    def architectures(self, mappings):
        rows = [mappings] if hasattr(mappings, "keys") else list(mappings)
        known = {choice.name: choice.options for choice in self.choices}
        mended = [
            {n: row[n] if row.get(n) in known[n] else known[n][0] for n in known} for row in rows
        ]
        return super().architectures(mended)


class Redrawn(Sound):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def subnet(self, arch):
        network = super().subnet(arch)
        nn.init.normal_(network.head.linear.weight, generator=self.generator)
        return network


class Aliased(Sound):
    def subnet(self, arch):
        network = super().subnet(arch)
        width = arch["width"]
        network.stem.conv.weight.data = self.state["stem.conv.weight"][:width]
        return network


class SharedStatistics(Sound):
    zeros = torch.zeros(8)

    def subnet(self, arch):
        network = super().subnet(arch)
        network.stem.bn.running_mean = self.zeros[: arch["width"]]
        return network


class Cached(Sound):
    def __init__(self):
        self.cache = {}
        super().__init__()

    def subnet(self, arch):
        return self.cache.setdefault(arch.key, super().subnet(arch))


class ActiveSubnet(Sound):
    """One network, whose subnet is set before it is used."""

    active = None

    def subnet(self, arch):
        network = super().subnet(arch)
        if self.active is not None:
            nn.init.ones_(self.active.stem.bn.weight.data)
            nn.init.constant_(self.active.stem.bn.bias.data, 2)
        self.active = network
        return network


class Seeded(Sound):
    def subnet(self, arch):
        self.build(arch)
        return super().subnet(arch)


class DeadChoice(Sound):
    choices = (*Sound.choices, Choice("colour", ("red", "green")))


class Unconditional(Sound):
    choices = (*Sound.choices[:-1], Choice("layer2.kernel", (1, 3)))


class Deaf(Sound):
    class head(Head):  # noqa: N801
        def forward(self, x):
            return super().forward(x * 0.0)


class Sociable(Sound):
    class head(Head):  # noqa: N801
        def forward(self, x):
            return super().forward(x - 0.5 * x.mean(0, keepdim=True))


class ForgottenNorms(Sound):
    recalibrate = (nn.BatchNorm1d,)


class IdleNorm(Sound):
    class layer(Layer):  # noqa: N801
        def __init__(self, in_, out, kernel=3):
            super().__init__(in_, out, kernel)
            self.idle = nn.BatchNorm2d(out, affine=False)


class ForgottenAndMore(ForgottenNorms):
    """Two things wrong."""

    choices = DeadChoice.choices


class Rewritten(Sound):
    """Its norms change weights while they are recalibrated."""

    class layer(Layer):  # noqa: N801
        def forward(self, x):
            before = self.bn.running_mean.clone()
            out = super().forward(x)
            if not torch.equal(self.bn.running_mean, before):
                self.conv.weight.data *= 0.5
            return out


class Gap(Sound):
    class Network(nn.Sequential):
        def forward(self, x):
            return super().forward(x.abs())

    def build(self, arch):
        return self.Network(OrderedDict(super().build(arch).named_children()))


class Misnamed(Sound):
    def blocks(self, arch):
        chain = super().blocks(arch)
        return [*chain[:-1], replace(chain[-1], name="classifier")]


class Orphan(Sound):
    def build(self, arch):
        network = super().build(arch)
        network.register_parameter("temperature", nn.Parameter(torch.ones(1)))
        return network


class DishonestShape(Sound):
    def blocks(self, arch):
        first, *rest = super().blocks(arch)
        spec = replace(first.spec, input_shape=(3, 2 * SIDE, 2 * SIDE))
        return [replace(first, spec=spec), *rest]


class VagueSpec(Sound):
    def blocks(self, arch):
        return [
            replace(block, spec=replace(block.spec, hyperparameters=()))
            for block in super().blocks(arch)
        ]


class SecretSlope(Sound):
    choices = (*Sound.choices, Choice("steep", (False, True)))

    def build(self, arch):
        network = super().build(arch)
        network.layer1.slope = 2 if arch["steep"] else 1
        return network

    class layer(Layer):  # noqa: N801
        slope = 1

        def forward(self, x):
            return self.slope * super().forward(x)


class Flattered(Sound):
    def blocks(self, arch):
        *rest, last = super().blocks(arch)
        return [*rest, replace(last, macs=last.macs - 1)]


class TwoFaced(Sound):
    class head(Head):  # noqa: N801
        def forward(self, x):
            return super().forward(x.clamp(max=0.1) if torch.onnx.is_in_onnx_export() else x)


class BakedBatch(Sound):
    class head(Head):  # noqa: N801
        def forward(self, x):
            scores = self.linear(x.mean((2, 3)))
            return scores + torch.zeros(int(x.shape[0]), scores.shape[1])


class Einstein(Sound):
    class head(Head):  # noqa: N801
        def forward(self, x):
            ones = torch.ones(self.linear.weight.shape[0])
            scores = torch.einsum("nc,kc,k->nk", x.mean((2, 3)), self.linear.weight, ones)
            return scores + self.linear.bias
