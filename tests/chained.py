"""A made-up supernet's space and blocks, small and with every kind of dependence."""

from hwsearch.blocks import Block, BlockSpec
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace(
    [
        Choice("resolution", (24, 32)),
        Choice("width", (4, 6, 8)),
        Choice("depth", (1, 2, 3)),
        Choice("block1.kernel", (3, 5, 7)),
        Choice("block2.kernel", (3, 5, 7), ("depth", (2, 3))),
        Choice("block3.kernel", (3, 5, 7), ("depth", (3,))),
        Choice("act", ("relu", "swish")),
        Choice("squeeze", (False, True)),
    ]
)


def block(name, kind, side, width, macs=None, **hyperparameters):
    spec = BlockSpec(
        kind=kind,
        hyperparameters=tuple(sorted(hyperparameters.items())),
        input_shape=(width, side, side),
    )
    cost = macs or side * side * width * sum(v for v in hyperparameters.values())
    return Block(name=name, spec=spec, macs=cost, params=cost // 7)


def blocks(arch):
    """The last block squeezes only where the width is 8: one choice matters under another."""
    side, width = arch["resolution"], arch["width"]
    chain = [block("stem", "conv", side, 3, out=width)]
    for number in range(1, arch["depth"] + 1):
        kernel = arch[f"block{number}.kernel"]
        swish = arch["act"] == "swish"
        chain.append(block(f"block{number}", "residual", side, width, kernel=kernel, swish=swish))
    squeezed = arch["squeeze"] and width == 8
    return [*chain, block("head", "head", 1, width, classes=10, squeezed=squeezed)]
