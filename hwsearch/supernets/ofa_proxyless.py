"""Once-for-all ProxylessNAS of width 1.3 (Cai et al., ICLR 2020; ProxylessNAS, ICLR 2019).

Published checkpoint: ``ofa_proxyless_d234_e346_k357_w1.3``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hwsearch.space import Architecture, Choice
from hwsearch.supernets.builder import ChainFamily, Design, elastic_stage
from hwsearch.supernets.ofa import (
    INVERTED_PARTS,
    N_CLASSES,
    RESOLUTION,
    OfaSpace,
    image_input,
    key_renamer,
)
from hwsearch.supernets.ofa_mbv3 import EXPANSIONS, KERNELS, inverted_words, published_blocks
from hwsearch.supernets.pieces import Classifier, Conv, InvertedResidual, Piece, make_divisible

EPS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What does not change from block to block, and the depths."""

    width: int
    stride: int
    depths: tuple[int, ...] = (2, 3, 4)


STAGES = {
    "stage1": Stage(width=24, stride=2),
    "stage2": Stage(width=40, stride=2),
    "stage3": Stage(width=80, stride=2),
    "stage4": Stage(width=96, stride=1),
    "stage5": Stage(width=192, stride=2),
    "stage6": Stage(width=320, stride=1, depths=(1,)),
}
STEM, FIRST, MIXED = 32, 16, 1280


def design(
    width_mult: float,
    stages: dict[str, Stage],
    resolution: Choice = RESOLUTION,
    classes: int = N_CLASSES,
) -> Design:
    """Return the design of one width."""
    choices = [
        choice
        for name, stage in stages.items()
        for choice in elastic_stage(name, stage.depths, kernel=KERNELS, expand=EXPANSIONS)
    ]
    words = inverted_words(choices)
    words["d"] = replace(words["d"], fixed=(1,))  # the last stage has one block
    space = OfaSpace([*choices, resolution], words, width_mult)

    def scaled(width: int) -> int:
        return make_divisible(width * width_mult)

    def chain(arch: Architecture) -> Iterator[tuple[str, Piece]]:
        yield "stem", Conv(out=scaled(STEM), stride=2, act="relu6", eps=EPS)
        yield "first", InvertedResidual(out=scaled(FIRST), expand=1, eps=EPS)
        for name, stage in stages.items():
            depth = int(arch.get(f"{name}.depth", stage.depths[0]))
            for block in range(1, depth + 1):
                yield (
                    f"{name}.block{block}",
                    InvertedResidual(
                        out=scaled(stage.width),
                        kernel=int(arch[f"{name}.block{block}.kernel"]),
                        expand=int(arch[f"{name}.block{block}.expand"]),
                        stride=stage.stride if block == 1 else 1,
                        eps=EPS,
                    ),
                )
        yield "mix", Conv(out=scaled(MIXED), kernel=1, act="relu6", eps=EPS)
        yield "classifier", Classifier(classes=classes)

    return Design(
        space=space,
        chain=chain,
        input_spec=image_input(classes),
        defaults={"resolution": max(resolution.options)},
        kernels=KERNELS,
        statistics=True,
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
    rename=key_renamer(
        {
            **INVERTED_PARTS,
            "first_conv": "stem",
            "feature_mix_layer": "mix",
            "classifier.linear": "classifier",
        },
        published_blocks({name: max(stage.depths) for name, stage in STAGES.items()}),
    ),
    weights=" (published as ofa_proxyless_d234_e346_k357_w1.3)",
)
