"""Once-for-all ResNet50: elastic depth, inner width and width (Cai et al., ICLR 2020).

Published checkpoint: ``ofa_resnet50_d=0+1+2_e=0.2+0.25+0.35_w=0.65+0.8+1.0``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hwsearch.space import Architecture, Choice, Option
from hwsearch.supernets.builder import ChainFamily, Design, elastic_stage
from hwsearch.supernets.conv_blocks import (
    Bottleneck,
    Classifier,
    Conv,
    MaxPool,
    Piece,
    make_divisible,
)
from hwsearch.supernets.ofa import (
    N_CLASSES,
    RESOLUTION,
    OfaSpace,
    Word,
    image_design,
    key_renamer,
)

WIDTH_MULTS = (0.65, 0.8, 1.0)
WIDTHS, DEPTHS, EXPANSIONS = (0, 1, 2), (0, 1, 2), (0.2, 0.25, 0.35)
# The stem's middle convolution is there at depth 2 alone: 1 is the same network as 0.
STEM_DEPTHS = (0, 2)
STEM_ALIASES: dict[Option, Option] = {1: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Full width, stride and least number of blocks of a stage."""

    width: int
    stride: int
    blocks: int


STAGES = {
    "stage1": Stage(width=256, stride=1, blocks=2),
    "stage2": Stage(width=512, stride=2, blocks=2),
    "stage3": Stage(width=1024, stride=2, blocks=4),
    "stage4": Stage(width=2048, stride=2, blocks=2),
}
STEM = 64


def design(
    stem: int,
    stages: dict[str, Stage],
    resolution: Choice = RESOLUTION,
    classes: int = N_CLASSES,
) -> Design:
    """Return the design with a stem of the given full width."""
    depth = Choice("stem.depth", STEM_DEPTHS)
    widths = [Choice("stem.inner", WIDTHS), Choice("stem.width", WIDTHS)]
    choices: list[Choice] = [depth, *widths]
    for name, stage in stages.items():
        widths.append(Choice(f"{name}.width", WIDTHS))
        choices.append(widths[-1])
        choices += elastic_stage(name, DEPTHS, base=stage.blocks, expand=EXPANSIONS)
    depths = [choice for choice in choices if choice.name.endswith(".depth")]
    expansions = [choice for choice in choices if choice.name.endswith(".expand")]
    words = {
        "d": Word(choices=tuple(depths), aliases={"stem.depth": STEM_ALIASES}),
        "e": Word(choices=tuple(expansions)),
        "w": Word(choices=tuple(widths)),
    }

    def width(arch: Architecture, choice: str, full: int) -> int:
        return make_divisible(full * WIDTH_MULTS[int(arch[choice])])

    def chain(arch: Architecture) -> Iterator[tuple[str, Piece]]:
        inner = make_divisible(width(arch, "stem.inner", stem) // 2)
        yield "stem.conv1", Conv(out=inner, stride=2)
        if arch["stem.depth"] == max(STEM_DEPTHS):
            yield "stem.conv2", Conv(out=inner, residual=True)
        yield "stem.conv3", Conv(out=width(arch, "stem.width", stem))
        yield "stem.pool", MaxPool(window=3)
        for name, stage in stages.items():
            for block in range(1, stage.blocks + int(arch[f"{name}.depth"]) + 1):
                yield (
                    f"{name}.block{block}",
                    Bottleneck(
                        out=width(arch, f"{name}.width", stage.width),
                        expand=float(arch[f"{name}.block{block}.expand"]),
                        stride=stage.stride if block == 1 else 1,
                    ),
                )
        yield "classifier", Classifier(classes=classes)

    return image_design(OfaSpace([*choices, resolution], words), chain, classes)


BLOCKS = [
    f"{name}.block{block}"
    for name, stage in STAGES.items()
    for block in range(1, stage.blocks + max(DEPTHS) + 1)
]
FAMILY = ChainFamily(
    name="ofa-resnet50",
    summary="once-for-all ResNet50: depths, inner widths, widths",
    design=design(STEM, STAGES),
    small=design(
        48,  # any narrower, and widths that differ would be rounded to the same
        {
            "stage1": Stage(width=64, stride=1, blocks=1),
            "stage2": Stage(width=128, stride=2, blocks=1),
        },
        Choice("resolution", (24, 32)),
        classes=4,
    ),
    rename=key_renamer(
        {
            "input_stem.0": "stem.conv1",
            "input_stem.1.conv.bn": "stem.conv2.bn",
            "input_stem.1.conv": "stem.conv2.conv",
            "input_stem.2": "stem.conv3",
            "classifier.linear": "classifier",
        },
        BLOCKS,
    ),
    weights=" (published as ofa_resnet50_d=0+1+2_e=0.2+0.25+0.35_w=0.65+0.8+1.0)",
)
