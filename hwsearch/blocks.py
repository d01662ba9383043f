"""Block specs and blocks: a subnet as a chain of blocks with exact costs."""

from dataclasses import dataclass

Hyperparameter = int | float | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """Kind, hyperparameters and input of a block: all that decides its cost, without weights.

    Two blocks with equal specs take the same time on a device; their weights may differ.

    Attributes:
        kind: The family's name of this kind of block, such as ``"residual"``.
        hyperparameters: Sorted (name, value) pairs, such as ``(("inner", 20), ("width", 40))``.
        input_shape: Shape of the block's input without the batch.
        dtype: NumPy name of the input's element type.
    """

    kind: str
    hyperparameters: tuple[tuple[str, Hyperparameter], ...]
    input_shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of a chain.

    Attributes:
        name: Name of the block's module in the subnet, such as ``"stage1.block2"``; the names of
            its weights begin with it.
        macs: Multiply-accumulates of its convolutions and matrix products for one sample.
        params: Number of learned parameters, without batch statistics.
    """

    name: str
    spec: BlockSpec
    macs: int
    params: int
