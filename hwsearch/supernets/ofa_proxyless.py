"""Once-for-all ProxylessNAS of width 1.3 (Cai et al., ICLR 2020; ProxylessNAS, ICLR 2019).

Published checkpoint: ``ofa_proxyless_d234_e346_k357_w1.3``.
"""

from hwsearch.space import Choice
from hwsearch.supernets.builder import ChainFamily, Design
from hwsearch.supernets.conv_blocks import Classifier, Conv, InvertedResidual, make_divisible
from hwsearch.supernets.ofa import N_CLASSES, RESOLUTION
from hwsearch.supernets.ofa_inverted import Stage, inverted_design, inverted_renamer

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
    stem, first, mixed = (make_divisible(width * width_mult) for width in (STEM, FIRST, MIXED))
    return inverted_design(
        width_mult,
        stages,
        resolution,
        before={
            "stem": Conv(out=stem, stride=2, act="relu6", eps=EPS),
            "first": InvertedResidual(out=first, expand=1, eps=EPS),
        },
        after={
            "mix": Conv(out=mixed, kernel=1, act="relu6", eps=EPS),
            "classifier": Classifier(classes=classes),
        },
        classes=classes,
    )


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
