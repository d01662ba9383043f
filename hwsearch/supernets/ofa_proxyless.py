"""Once-for-all ProxylessNAS of width 1.3 (Cai et al., ICLR 2020; ProxylessNAS, ICLR 2019).

Published checkpoint: ``ofa_proxyless_d234_e346_k357_w1.3``.
"""

from collections.abc import Iterator

from hwsearch.space import Architecture, Choice
from hwsearch.supernets.builder import ChainFamily, Design
from hwsearch.supernets.conv_blocks import (
    Classifier,
    Conv,
    InvertedResidual,
    Piece,
    make_divisible,
)
from hwsearch.supernets.ofa import N_CLASSES, RESOLUTION, image_design
from hwsearch.supernets.ofa_inverted import (
    KERNELS,
    Stage,
    inverted_blocks,
    inverted_renamer,
    inverted_space,
)

EPS = 1e-3
STAGES = {
    "stage1": Stage(width=24, stride=2, eps=EPS),
    "stage2": Stage(width=40, stride=2, eps=EPS),
    "stage3": Stage(width=80, stride=2, eps=EPS),
    "stage4": Stage(width=96, stride=1, eps=EPS),
    "stage5": Stage(width=192, stride=2, eps=EPS),
    "stage6": Stage(width=320, stride=1, eps=EPS, depths=(1,)),
}
STEM, FIRST, MIXED = 32, 16, 1280


def design(
    width_mult: float,
    stages: dict[str, Stage],
    resolution: Choice = RESOLUTION,
    classes: int = N_CLASSES,
) -> Design:
    """Return the design of one width."""

    def scaled(width: int) -> int:
        return make_divisible(width * width_mult)

    def chain(arch: Architecture) -> Iterator[tuple[str, Piece]]:
        yield "stem", Conv(out=scaled(STEM), stride=2, act="relu6", eps=EPS)
        yield "first", InvertedResidual(out=scaled(FIRST), expand=1, eps=EPS)
        yield from inverted_blocks(arch, stages, width_mult)
        yield "mix", Conv(out=scaled(MIXED), kernel=1, act="relu6", eps=EPS)
        yield "classifier", Classifier(classes=classes)

    space = inverted_space(stages, resolution, width_mult)
    return image_design(space, chain, classes, kernels=KERNELS)


FAMILY = ChainFamily(
    name="ofa-proxyless-w1.3",
    summary="once-for-all ProxylessNAS, width 1.3: kernels, expansions, depths",
    design=design(1.3, STAGES),
    small=design(
        0.5,
        {name: STAGES[name] for name in ("stage1", "stage6")},
        Choice("resolution", (24, 32)),
        classes=4,
    ),
    rename=inverted_renamer(STAGES),
    weights=" (published as ofa_proxyless_d234_e346_k357_w1.3)",
)
