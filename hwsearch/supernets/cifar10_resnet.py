"""The bundled supernet: a residual CIFAR-10 network with elastic depth and widths.

A stem at full resolution, then stages that each halve the resolution, change the width by a 3x3
convolution and add residual blocks of two 3x3 convolutions (He et al., "Deep Residual Learning
for Image Recognition", CVPR 2016). Elastic are every stage's width and depth and every block's
inner width. A narrower subnet takes the first channels of the full weights, as in "Slimmable
Neural Networks" (Yu et al., ICLR 2019) and "Once-for-All" (Cai et al., ICLR 2020).
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.blocks import Block, BlockSpec
from hwsearch.space import Architecture, Choice, SearchSpace
from hwsearch.supernets.base import Card, ImagePreprocessing, InputSpec, TensorSpec
from hwsearch.supernets.checkpoints import (
    bundled_card,
    bundled_file,
    leading_weights,
    match_state,
    read_state,
    seed_of,
)
from hwsearch.supernets.costs import conv2d_macs, parameter_digest

NAME = "cifar10-resnet"
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDesign:
    """Options of one stage; a block's inner width does not depend on the stage's width."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    inners: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """All that decides the shapes of a supernet of this family."""

    stem: int
    stages: tuple[StageDesign, ...]
    resolution: int = 32
    classes: tuple[str, ...] = CLASSES


FULL = Design(
    stem=40,
    stages=(
        StageDesign(widths=(20, 30, 40), depths=(0, 1, 2), inners=(10, 20, 30, 40)),
        StageDesign(widths=(40, 60, 80), depths=(1, 2, 3), inners=(20, 40, 60, 80)),
        StageDesign(widths=(80, 120, 160), depths=(1, 2, 3), inners=(40, 80, 120, 160)),
    ),
)
TINY = Design(
    stem=8,
    stages=(
        StageDesign(widths=(4, 8), depths=(0, 1), inners=(4, 8)),
        StageDesign(widths=(8, 16), depths=(1, 2), inners=(8, 16)),
    ),
    resolution=16,
    classes=CLASSES[:4],
)


class ConvBnReLU(nn.Sequential):
    """A 3x3 convolution, its batch norm and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: dict[str, nn.Module] = {
            "conv": nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            "bn": nn.BatchNorm2d(out_channels),
            "relu": nn.ReLU(),
        }
        super().__init__(OrderedDict(layers))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, width to inner and back, added to the block's input."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same shape."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(inner)))


def search_space(design: Design) -> SearchSpace:
    """Build the space: per stage a width, a depth, and an inner width for each active block."""
    choices = []
    for number, stage in enumerate(design.stages, start=1):
        depth = f"stage{number}.depth"
        choices += [Choice(f"stage{number}.width", stage.widths), Choice(depth, stage.depths)]
        for block in range(1, max(stage.depths) + 1):
            deep_enough = tuple(d for d in stage.depths if d >= block)
            active = None if deep_enough == stage.depths else (depth, deep_enough)
            choices.append(Choice(f"stage{number}.block{block}.inner", stage.inners, active))
    return SearchSpace(choices)


def build(design: Design, arch: Mapping[str, object]) -> nn.Sequential:
    """Build the static network of an architecture with freshly initialised weights."""
    layers: dict[str, nn.Module] = {"stem": ConvBnReLU(3, design.stem)}
    channels = design.stem
    for number in range(1, len(design.stages) + 1):
        width, inners = _stage(arch, number)
        stage: dict[str, nn.Module] = {
            "pool": nn.MaxPool2d(2),
            "transition": ConvBnReLU(channels, width),
        }
        for block, inner in enumerate(inners, start=1):
            stage[f"block{block}"] = ResidualBlock(width, inner)
        layers[f"stage{number}"] = nn.Sequential(OrderedDict(stage))
        channels = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, len(design.classes))
    return nn.Sequential(OrderedDict(layers))


def initial_state(design: Design, seed: int) -> dict[str, Tensor]:
    """Return seeded random weights of the largest network, as training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(design, search_space(design).largest()[0])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


class ElasticResNet:
    """A supernet of this family: one set of weights and every subnet in it."""

    recalibrate: tuple[type[nn.Module], ...] = (nn.BatchNorm2d,)

    def __init__(self, design: Design, state: Mapping[str, Tensor], card: Card) -> None:
        self.design = design
        self.space = search_space(design)
        self.card = card
        self.state = dict(state)
        self.digest = parameter_digest(self.state)

    def subnet(self, arch: Architecture) -> nn.Module:
        """Return the standalone network, with copies of the leading channels as weights."""
        with torch.device("meta"):
            network = build(self.design, arch)
        network.to_empty(device="cpu")
        network.load_state_dict(leading_weights(self.state, network), strict=True)
        return network.eval()

    def input_spec(self, arch: Architecture) -> InputSpec:  # noqa: ARG002 - same for all
        """Return the same for every architecture: one normalised RGB image."""
        side = self.design.resolution
        return InputSpec(
            inputs=(TensorSpec(name="image", shape=(3, side, side)),),
            preprocessing=ImagePreprocessing(resize=side, crop=side, mean=MEAN, std=STD),
            classes=self.design.classes,
        )

    def blocks(self, arch: Architecture) -> list[Block]:
        """Return stem, transitions, residual blocks and head in the order of the network."""
        side, channels = self.design.resolution, self.design.stem
        chain = [_conv_block("stem", "stem", 3, channels, side, pool=1)]
        for number in range(1, len(self.design.stages) + 1):
            width, inners = _stage(arch, number)
            name = f"stage{number}"
            chain.append(_conv_block(f"{name}.transition", "transition", channels, width, side, 2))
            side, channels = side // 2, width
            chain += [
                _residual_block(f"{name}.block{block}", width, inner, side)
                for block, inner in enumerate(inners, start=1)
            ]
        classes = len(self.design.classes)
        chain.append(
            Block(
                name="head",
                spec=BlockSpec(
                    kind="head",
                    hyperparameters=(("classes", classes),),
                    input_shape=(channels, side, side),
                ),
                macs=channels * classes,
                params=(channels + 1) * classes,
            )
        )
        return chain


def _stage(arch: Mapping[str, object], number: int) -> tuple[int, list[int]]:
    def option(choice: str) -> int:
        return int(arch[f"stage{number}.{choice}"])  # type: ignore[call-overload,no-any-return]

    inners = [option(f"block{block}.inner") for block in range(1, option("depth") + 1)]
    return option("width"), inners


def _conv_block(name: str, kind: str, in_: int, out: int, side: int, pool: int) -> Block:
    after = side // pool
    return Block(
        name=name,
        spec=BlockSpec(kind=kind, hyperparameters=(("out", out),), input_shape=(in_, side, side)),
        macs=conv2d_macs((out, in_, 3, 3), after, after),
        params=out * in_ * 9 + 2 * out,
    )


def _residual_block(name: str, width: int, inner: int, side: int) -> Block:
    return Block(
        name=name,
        spec=BlockSpec(
            kind="residual", hyperparameters=(("inner", inner),), input_shape=(width, side, side)
        ),
        macs=2 * conv2d_macs((inner, width, 3, 3), side, side),
        params=2 * 9 * width * inner + 2 * (width + inner),
    )


class Cifar10Resnet:
    """The family as it is registered."""

    name = NAME
    summary = "residual CIFAR-10 network, elastic depth and widths; weights and images ship"

    def load(self, checkpoint: str | None) -> ElasticResNet:
        """Load the shipped weights, a checkpoint file, or seeded random ones ("random:SEED").

        Raises:
            InputError: The file is no safe checkpoint of this network.
        """
        expected = initial_state(FULL, seed=seed_of(checkpoint) or 0)
        if checkpoint is None:
            source = bundled_file(NAME, "weights.safetensors")
            return ElasticResNet(FULL, match_state(read_state(source), expected, source, NAME),
                                 bundled_card(NAME))  # fmt: skip
        if seed_of(checkpoint) is not None:
            return ElasticResNet(FULL, expected, _card(f"seeded random weights ({checkpoint})"))
        path = Path(checkpoint)
        state = match_state(read_state(path), expected, path, NAME)
        return ElasticResNet(FULL, state, _card(f"checkpoint {path.name}"))

    def tiny(self, seed: int = 0) -> ElasticResNet:
        """Return a miniature with two stages, 16 px inputs, 4 classes and random weights."""
        return ElasticResNet(TINY, initial_state(TINY, seed), _card(f"tiny, random:{seed}"))


def _card(source: str) -> Card:
    return Card(name=NAME, description=Cifar10Resnet.summary, licence="unknown", source=source)


FAMILY = Cifar10Resnet()
