"""Block specs and blocks: a subnet as a chain of blocks with exact costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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

    def to_record(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {**asdict(self), "hyperparameters": dict(self.hyperparameters)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "BlockSpec":
        """Return the spec of a record of `to_record`."""
        return cls(
            kind=record["kind"],
            hyperparameters=tuple(sorted(record["hyperparameters"].items())),
            input_shape=tuple(record["input_shape"]),
            dtype=record["dtype"],
        )


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
