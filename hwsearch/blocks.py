"""Block specs: the chain of blocks that a subnet is, with what each one costs exactly."""

from dataclasses import dataclass

Hyperparameter = int | float | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """Kind, hyperparameters and input of a block: what decides its cost, and no weights.

    Two blocks with equal specs take the same time on a device; their weights may differ.

    Attributes:
        kind: What the family calls this kind of block, such as ``"residual"``.
        hyperparameters: Sorted (name, value) pairs, such as ``(("inner", 20), ("width", 40))``.
        input_shape: Shape of the block's input without the batch.
        dtype: Element type of the input, as NumPy spells it.
    """

    kind: str
    hyperparameters: tuple[tuple[str, Hyperparameter], ...]
    input_shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One link of the chain: its place in the subnet, its spec, and its exact costs.

    Attributes:
        name: Name of the block's module in the subnet, such as ``"stage1.block2"``; weights of
            the block carry it as prefix.
        spec: What decides the cost.
        macs: Multiply-accumulates of its convolutions and matrix products for one sample.
        params: Learned numbers of the block; batch statistics are not among them.
    """

    name: str
    spec: BlockSpec
    macs: int
    params: int
