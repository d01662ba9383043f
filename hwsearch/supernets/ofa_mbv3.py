"""Once-for-all MobileNetV3 (Cai et al., ICLR 2020), of width 1.0 and 1.2.

Published checkpoints: ``ofa_mbv3_d234_e346_k357_w1.0`` and ``ofa_mbv3_d234_e346_k357_w1.2``.
"""

from hwsearch.space import Choice
from hwsearch.supernets.builder import ChainFamily, Design
from hwsearch.supernets.conv_blocks import (
    Classifier,
    Conv,
    GlobalPool,
    InvertedResidual,
    make_divisible,
)
from hwsearch.supernets.ofa import N_CLASSES, RESOLUTION
from hwsearch.supernets.ofa_inverted import Stage, inverted_design, inverted_renamer

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
    stem, last, mixed = (make_divisible(width * width_mult) for width in (STEM, LAST, MIXED))
    return inverted_design(
        width_mult,
        stages,
        resolution,
        before={
            "stem": Conv(out=stem, stride=2, act="hardswish"),
            "first": InvertedResidual(out=stem, expand=1, act="relu"),
        },
        after={
            "final": Conv(out=last, kernel=1, act="hardswish"),
            "pool": GlobalPool(),
            "mix": Conv(out=mixed, kernel=1, act="hardswish", norm=False),
            "classifier": Classifier(classes=classes, pool=False),
        },
        classes=classes,
    )


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
