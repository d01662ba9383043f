"""The bundled supernet: a residual CIFAR-10 network with elastic depth and widths.

A stem at full resolution, then stages that each halve the resolution, change the width by a 3x3
convolution and add residual blocks of two 3x3 convolutions (He et al., "Deep Residual Learning
for Image Recognition", CVPR 2016). Elastic are every stage's width and depth and every block's
inner width. A narrower subnet takes the first channels of the full weights, as in "Slimmable
Neural Networks" (Yu et al., ICLR 2019) and "Once-for-All" (Cai et al., ICLR 2020).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hwsearch.space import Architecture, Choice, SearchSpace
from hwsearch.supernets.builder import ChainFamily, Design, elastic_stage
from hwsearch.supernets.conv_blocks import Basic, Classifier, Conv, MaxPool, Piece
from hwsearch.supernets.interface import ImagePreprocessing, InputSpec, TensorSpec

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Options of one stage; a block's inner width is independent of the stage's width."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    inners: tuple[int, ...]


def design(stem: int, stages: dict[str, Stage], side: int, classes: tuple[str, ...]) -> Design:
    """Return the design of given stem width, stages by name, and image side."""
    spec = InputSpec(
        inputs=(TensorSpec(name="image", shape=(3, side, side)),),
        preprocessing=ImagePreprocessing(resize=side, crop=side, mean=MEAN, std=STD),
        classes=classes,
    )
    choices: list[Choice] = []
    for name, stage in stages.items():
        choices.append(Choice(f"{name}.width", stage.widths))
        choices += elastic_stage(name, stage.depths, inner=stage.inners)

    def chain(arch: Architecture) -> Iterator[tuple[str, Piece]]:
        yield "stem", Conv(out=stem)
        for name in stages:
            yield f"{name}.pool", MaxPool()
            yield f"{name}.transition", Conv(out=int(arch[f"{name}.width"]))
            for block in range(1, int(arch[f"{name}.depth"]) + 1):
                inner = int(arch[f"{name}.block{block}.inner"])
                yield f"{name}.block{block}", Basic(inner=inner)
        yield "head", Classifier(classes=len(classes))

    return Design(space=SearchSpace(choices), chain=chain, input_spec=lambda _: spec)


FULL = design(
    stem=40,
    stages={
        "stage1": Stage(widths=(20, 30, 40), depths=(0, 1, 2), inners=(10, 20, 30, 40)),
        "stage2": Stage(widths=(40, 60, 80), depths=(1, 2, 3), inners=(20, 40, 60, 80)),
        "stage3": Stage(widths=(80, 120, 160), depths=(1, 2, 3), inners=(40, 80, 120, 160)),
    },
    side=32,
    classes=CLASSES,
)
TINY = design(
    stem=8,
    stages={
        "stage1": Stage(widths=(4, 8), depths=(0, 1), inners=(4, 8)),
        "stage2": Stage(widths=(8, 16), depths=(1, 2), inners=(8, 16)),
    },
    side=16,
    classes=CLASSES[:4],
)
FAMILY = ChainFamily(
    name="cifar10-resnet",
    summary="residual CIFAR-10 network, elastic depth and widths; weights and images ship",
    design=FULL,
    small=TINY,
)
