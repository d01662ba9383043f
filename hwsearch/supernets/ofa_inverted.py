"""Once-for-all families of inverted residual blocks: stages, search space, checkpoint keys."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hwsearch.space import Architecture, Choice
from hwsearch.supernets.builder import Design, elastic_stage
from hwsearch.supernets.conv_blocks import InvertedResidual, Piece, make_divisible
from hwsearch.supernets.ofa import KeyRenamer, OfaSpace, Word, image_design, key_renamer

KERNELS, EXPANSIONS = (3, 5, 7), (3, 4, 6)
# Parts of a block and of the network around the blocks: published name -> ours.
PARTS = {
    "inverted_bottleneck": "expand",
    "depth_conv.se.fc": "se",
    "depth_conv": "depthwise",
    "point_linear": "project",
    "first_conv": "stem",
    "final_expand_layer": "final",
    "feature_mix_layer": "mix",
    "classifier.linear": "classifier",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of blocks with elastic kernels and expansion ratios.

    ``width`` is before the width multiplier, ``stride`` of the first block; ``se`` adds
    squeeze-and-excite gates; ``depths`` are the options of the number of blocks.
    """

    width: int
    stride: int
    act: str = "relu6"
    se: bool = False
    depths: tuple[int, ...] = (2, 3, 4)
    eps: float = 1e-5


def inverted_design(
    width_mult: float,
    stages: Mapping[str, Stage],
    resolution: Choice,
    *,
    before: Mapping[str, Piece],
    after: Mapping[str, Piece],
    classes: int,
) -> Design:
    """Return the design of stages between fixed pieces, given by name."""
    choices = [
        choice
        for name, stage in stages.items()
        for choice in elastic_stage(name, stage.depths, kernel=KERNELS, expand=EXPANSIONS)
    ]

    def ending(suffix: str) -> Word:
        return Word(choices=tuple(c for c in choices if c.name.endswith(suffix)))

    fixed = tuple(stage.depths[0] for stage in stages.values() if len(stage.depths) == 1)
    depth = replace(ending(".depth"), fixed=fixed)
    words = {"ks": ending(".kernel"), "e": ending(".expand"), "d": depth}

    def chain(arch: Architecture) -> Iterator[tuple[str, Piece]]:
        yield from before.items()
        for name, stage in stages.items():
            for number in range(1, int(arch.get(f"{name}.depth", stage.depths[0])) + 1):
                block = f"{name}.block{number}"
                piece = InvertedResidual(
                    out=make_divisible(stage.width * width_mult),
                    kernel=int(arch[f"{block}.kernel"]),
                    expand=int(arch[f"{block}.expand"]),
                    stride=stage.stride if number == 1 else 1,
                    act=stage.act,
                    se=stage.se,
                    eps=stage.eps,
                )
                yield block, piece
        yield from after.items()

    space = OfaSpace([*choices, resolution], words, width_mult)
    return image_design(space, chain, classes, kernels=KERNELS)


def inverted_renamer(stages: Mapping[str, Stage]) -> KeyRenamer:
    """Return the function from a published key to ours."""
    blocks = [
        f"{name}.block{number}"
        for name, stage in stages.items()
        for number in range(1, max(stage.depths) + 1)
    ]
    return key_renamer(PARTS, ["first", *blocks])
