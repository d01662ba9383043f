"""Once-for-all MobileNetV3 (Cai et al., ICLR 2020), of width 1.0 and 1.2.

Published checkpoints: ``ofa_mbv3_d234_e346_k357_w1.0`` and ``ofa_mbv3_d234_e346_k357_w1.2``.
"""

from collections.abc import Iterator

from hwsearch.space import Architecture, Choice
from hwsearch.supernets.builder import ChainFamily, Design
from hwsearch.supernets.conv_blocks import (
    Classifier,
    Conv,
    GlobalPool,
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

STAGES = {
    "stage1": Stage(width=24, stride=2, act="relu"),
    "stage2": Stage(width=40, stride=2, act="relu", se=True),
    "stage3": Stage(width=80, stride=2, act="hardswish"),
    "stage4": Stage(width=112, stride=1, act="hardswish", se=True),
    "stage5": Stage(width=160, stride=2, act="hardswish", se=True),
}
STEM, LAST, MIXED = 16, 960, 1280


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
        yield "stem", Conv(out=scaled(STEM), stride=2, act="hardswish")
        yield "first", InvertedResidual(out=scaled(STEM), expand=1, act="relu")
        yield from inverted_blocks(arch, stages, width_mult)
        yield "final", Conv(out=scaled(LAST), kernel=1, act="hardswish")
        yield "pool", GlobalPool()
        yield "mix", Conv(out=scaled(MIXED), kernel=1, act="hardswish", norm=False)
        yield "classifier", Classifier(classes=classes, pool=False)

    space = inverted_space(stages, resolution, width_mult)
    return image_design(space, chain, classes, kernels=KERNELS)


def family(width_mult: float) -> ChainFamily:
    """Return the family of one width."""
    small = {name: STAGES[name] for name in ("stage1", "stage2")}
    return ChainFamily(
        name=f"ofa-mbv3-w{width_mult}",
        summary=f"once-for-all MobileNetV3, width {width_mult}: kernels, expansions, depths",
        design=design(width_mult, STAGES),
        small=design(width_mult / 2, small, Choice("resolution", (24, 32)), classes=4),
        rename=inverted_renamer(STAGES),
        weights=f" (published as ofa_mbv3_d234_e346_k357_w{width_mult})",
    )


FAMILY_W10 = family(1.0)
FAMILY_W12 = family(1.2)
