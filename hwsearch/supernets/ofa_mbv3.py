"""Once-for-all MobileNetV3 (Cai et al., ICLR 2020), of width 1.0 and 1.2.

Published checkpoints: ``ofa_mbv3_d234_e346_k357_w1.0`` and ``ofa_mbv3_d234_e346_k357_w1.2``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hwsearch.space import Architecture, Choice
from hwsearch.supernets.builder import ChainFamily, Design, elastic_stage
from hwsearch.supernets.ofa import (
    INVERTED_PARTS,
    N_CLASSES,
    RESOLUTION,
    OfaSpace,
    Word,
    image_input,
    key_renamer,
)
from hwsearch.supernets.pieces import (
    Classifier,
    Conv,
    GlobalPool,
    InvertedResidual,
    Piece,
    make_divisible,
)

KERNELS, EXPANSIONS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What does not change from block to block."""

    width: int
    stride: int
    act: str
    se: bool


STAGES = {
    "stage1": Stage(width=24, stride=2, act="relu", se=False),
    "stage2": Stage(width=40, stride=2, act="relu", se=True),
    "stage3": Stage(width=80, stride=2, act="hardswish", se=False),
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
    choices = [
        choice
        for stage in stages
        for choice in elastic_stage(stage, DEPTHS, kernel=KERNELS, expand=EXPANSIONS)
    ]
    space = OfaSpace([*choices, resolution], inverted_words(choices), width_mult)

    def scaled(width: int) -> int:
        return make_divisible(width * width_mult)

    def chain(arch: Architecture) -> Iterator[tuple[str, Piece]]:
        yield "stem", Conv(out=scaled(STEM), stride=2, act="hardswish")
        yield "first", InvertedResidual(out=scaled(STEM), expand=1, act="relu")
        for name, stage in stages.items():
            for block in range(1, int(arch[f"{name}.depth"]) + 1):
                yield (
                    f"{name}.block{block}",
                    InvertedResidual(
                        out=scaled(stage.width),
                        kernel=int(arch[f"{name}.block{block}.kernel"]),
                        expand=int(arch[f"{name}.block{block}.expand"]),
                        stride=stage.stride if block == 1 else 1,
                        act=stage.act,
                        se=stage.se,
                    ),
                )
        yield "final", Conv(out=scaled(LAST), kernel=1, act="hardswish")
        yield "pool", GlobalPool()
        yield "mix", Conv(out=scaled(MIXED), kernel=1, act="hardswish", norm=False)
        yield "classifier", Classifier(classes=classes, pool=False)

    return Design(
        space=space,
        chain=chain,
        input_spec=image_input(classes),
        defaults={"resolution": max(resolution.options)},
        kernels=KERNELS,
        statistics=True,
    )


def inverted_words(choices: list[Choice]) -> dict[str, Word]:
    """Return the words of stages of inverted residual blocks."""

    def ending(suffix: str) -> Word:
        return Word(choices=tuple(c for c in choices if c.name.endswith(suffix)))

    return {"ks": ending(".kernel"), "e": ending(".expand"), "d": ending(".depth")}


def published_blocks(stages: dict[str, int]) -> list[str]:
    """Return our names of the published ``blocks``, given the number of blocks per stage."""
    return ["first", *(f"{s}.block{b}" for s, n in stages.items() for b in range(1, n + 1))]


RENAME = key_renamer(
    {
        **INVERTED_PARTS,
        "first_conv": "stem",
        "final_expand_layer": "final",
        "feature_mix_layer": "mix",
        "classifier.linear": "classifier",
    },
    published_blocks(dict.fromkeys(STAGES, max(DEPTHS))),
)


def family(width_mult: float) -> ChainFamily:
    """Return the family of one width."""
    small = {name: STAGES[name] for name in ("stage1", "stage2")}
    return ChainFamily(
        name=f"ofa-mbv3-w{width_mult}",
        summary=f"once-for-all MobileNetV3, width {width_mult}: kernels, expansions, depths",
        design=design(width_mult, STAGES),
        small=design(width_mult / 2, small, Choice("resolution", (24, 32)), classes=4),
        rename=RENAME,
        weights=f" (published as ofa_mbv3_d234_e346_k357_w{width_mult})",
    )


FAMILY_W10 = family(1.0)
FAMILY_W12 = family(1.2)
