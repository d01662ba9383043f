"""A convolutional supernet: inverted residual blocks, elastic depth, width and expansion."""

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwsearch.blocks import Block, BlockSpec
from hwsearch.space import Architecture, Choice, SearchSpace
from hwsearch.supernets.checkpoints import leading_weights, parameter_digest
from hwsearch.supernets.interface import Card, ImagePreprocessing, InputSpec, TensorSpec
from hwsearch_test_plugin.weights import card, load_state, seeded_state

NAME = "test-images"
STEM, SIDE = 8, 12
STAGES = (((4, 6, 8), (1, 2, 3)), ((8, 12, 16), (1, 2, 3)))
EXPANSIONS = (1, 2, 3)
CLASSES = ("blob", "cross", "ring", "stripe")


def conv_bn(in_: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(
        in_, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out)))


class InvertedResidual(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = conv_bn(width, inner, 1)
        self.depthwise = conv_bn(inner, inner, 3, groups=inner)
        self.project = conv_bn(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.depthwise(self.expand(x).relu()).relu()
        return x + self.project(inner)


class Head(nn.Linear):
    """A block is one module, so it flattens by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


def search_space() -> SearchSpace:
    choices = []
    for number, (widths, depths) in enumerate(STAGES, start=1):
        depth = f"stage{number}.depth"
        choices += [Choice(f"stage{number}.width", widths), Choice(depth, depths)]
        for block in range(1, max(depths) + 1):
            active = tuple(d for d in depths if d >= block)
            condition = None if active == depths else (depth, active)
            choices.append(Choice(f"stage{number}.block{block}.expansion", EXPANSIONS, condition))
    return SearchSpace(choices)


def stages(arch: Mapping[str, object]) -> list[tuple[int, list[int]]]:
    """Width and expansions of every stage."""
    return [
        (
            arch[f"stage{number}.width"],
            [
                arch[f"stage{number}.block{block}.expansion"]
                for block in range(1, arch[f"stage{number}.depth"] + 1)
            ],
        )
        for number in range(1, len(STAGES) + 1)
    ]


def build(arch: Mapping[str, object]) -> nn.Sequential:
    layers = OrderedDict(
        stem=nn.Sequential(OrderedDict(conv_bn=conv_bn(3, STEM, 3), relu=nn.ReLU()))
    )
    channels = STEM
    for number, (width, expansions) in enumerate(stages(arch), start=1):
        layers[f"stage{number}"] = nn.Sequential(
            OrderedDict(
                down=conv_bn(channels, width, 3, stride=2),
                **{
                    f"block{block}": InvertedResidual(width, expansion)
                    for block, expansion in enumerate(expansions, start=1)
                },
            )
        )
        channels = width
    layers["head"] = Head(channels * (SIDE // 4) ** 2, len(CLASSES))
    return nn.Sequential(layers)


class ImageSupernet:
    recalibrate = (nn.BatchNorm2d,)

    def __init__(self, state: Mapping[str, Tensor], of: Card) -> None:
        self.space = search_space()
        self.state, self.card = dict(state), of
        self.digest = parameter_digest(self.state)

    def subnet(self, arch: Architecture) -> nn.Module:
        with torch.device("meta"):
            network = build(arch)
        network.to_empty(device="cpu")
        network.load_state_dict(leading_weights(self.state, network))
        return network.eval()

    def input_spec(self, arch: Architecture) -> InputSpec:
        return InputSpec(
            inputs=(TensorSpec(name="picture", shape=(3, SIDE, SIDE)),),
            preprocessing=ImagePreprocessing(
                resize=SIDE + 4, crop=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
            ),
            classes=CLASSES,
        )

    def blocks(self, arch: Architecture) -> list[Block]:
        side, channels = SIDE, STEM
        chain = [_block("stem", "stem", {"out": STEM}, (3, side, side), [(STEM, 3, 3, 3)], side)]
        for number, (width, expansions) in enumerate(stages(arch), start=1):
            shape = (channels, side, side)
            side //= 2
            weights = [(width, channels, 3, 3)]
            chain.append(
                _block(f"stage{number}.down", "down", {"out": width}, shape, weights, side)
            )
            channels = width
            for block, expansion in enumerate(expansions, start=1):
                inner = width * expansion
                weights = [(inner, width, 1, 1), (inner, 1, 3, 3), (width, inner, 1, 1)]
                name, spec = f"stage{number}.block{block}", {"expansion": expansion}
                chain.append(_block(name, "inverted", spec, (width, side, side), weights, side))
        features = channels * side**2
        head = BlockSpec(kind="head", hyperparameters=(), input_shape=(channels, side, side))
        params = (features + 1) * len(CLASSES)
        return [*chain, Block(name="head", spec=head, macs=params - len(CLASSES), params=params)]


def _block(name, kind, hyperparameters, shape, weights, side) -> Block:
    """Convolutions of these weights, each with a batch norm, all of one output size."""
    return Block(
        name=name,
        spec=BlockSpec(
            kind=kind, hyperparameters=tuple(hyperparameters.items()), input_shape=shape
        ),
        macs=sum(math.prod(weight) * side**2 for weight in weights),
        params=sum(out * i * h * w + 2 * out for out, i, h, w in weights),
    )


class ImageFamily:
    name = NAME
    summary = "convolutional, for tests"

    def load(self, checkpoint: str | None) -> ImageSupernet:
        return ImageSupernet(load_state(self._largest, checkpoint, NAME), card(NAME, checkpoint))

    def tiny(self, seed: int = 0) -> ImageSupernet:
        return ImageSupernet(seeded_state(self._largest, seed), card(NAME, f"random:{seed}"))

    @staticmethod
    def _largest() -> nn.Module:
        return build(search_space().largest()[0])


FAMILY = ImageFamily()
