"""Exact MACs and parameters, counted on a module or summed over blocks."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwsearch.chains import BlocksOf, BlockSum, ChainIndex
from hwsearch.errors import InputError
from hwsearch.restriction import widened
from hwsearch.space import Architecture, Architectures, SearchSpace

if TYPE_CHECKING:
    from hwsearch.supernets.base import TensorSpec

logger = logging.getLogger(__name__)
# Building the block index takes as long as counting about this many architectures.
_WORTH_AN_INDEX = 200


class ExactCosts:
    """MACs and parameters of architectures.

    A chain of blocks is looked up in the block index of its space, built once enough
    architectures were asked for. Other architectures are counted once and cached.
    """

    def __init__(self, blocks: BlocksOf, count: Callable[[Architecture], tuple[int, int]]) -> None:
        self._blocks, self._count = blocks, count
        self._counted: dict[str, tuple[int, int]] = {}
        self._sums: list[tuple[SearchSpace, tuple[BlockSum[np.int64], BlockSum[np.int64]]]] = []
        self._without_index: set[SearchSpace] = set()

    def of(self, archs: Architectures, which: int) -> NDArray[np.int64]:
        """Return the MACs (``which`` = 0) or parameters (1) of n architectures: (n,)."""
        found = self._sums_for(archs)
        if found is not None:
            space, sums = found
            own = archs if archs.space == space else widened(archs, space)
            try:
                return sums[which](own)
            except InputError as error:
                self._sums.remove(found)
                self._give_up(archs.space, error)
        keys = archs.ids
        for arch, key in zip(archs, keys, strict=True):
            if key not in self._counted:
                self._counted[key] = self._count(arch)
        return np.array([self._counted[key][which] for key in keys], dtype=np.int64)

    def _sums_for(
        self, archs: Architectures
    ) -> tuple[SearchSpace, tuple[BlockSum[np.int64], BlockSum[np.int64]]] | None:
        """Return a space that holds the architectures, and the sums of MACs and of parameters.

        None for few architectures, or without a block index.
        """
        space = archs.space
        found = next((each for each in self._sums if _holds(each[0], space)), None)
        few = len(archs) + len(self._counted) < _WORTH_AN_INDEX
        if found is not None or few or space in self._without_index:
            return found
        try:
            index = ChainIndex(space, self._blocks)
        except Exception as error:  # noqa: BLE001 - a family is a stranger's code
            # Counting one by one then names the architecture that fails.
            self._give_up(space, error)
            return None
        self._sums.append((space, (BlockSum(index, index.macs), BlockSum(index, index.params))))
        return self._sums[-1]

    def _give_up(self, space: SearchSpace, reason: Exception) -> None:
        logger.info("no block index: architectures are counted one by one, because %s", reason)
        self._without_index.add(space)


def _holds(space: SearchSpace, part: SearchSpace) -> bool:
    """Return whether a space has every choice and option of another."""
    if space == part:
        return True
    options = {choice.name: choice.options for choice in space.choices}
    return all(set(c.options) <= set(options.get(c.name, ())) for c in part.choices)


def module_costs(module: nn.Module, inputs: Iterable["TensorSpec"]) -> tuple[int, int]:
    """Return the MACs and the parameters of a module in eval mode for one sample.

    Convolutions, linear layers and matrix products count, one multiply-accumulate per product;
    biases, norms, activations and additions are free.
    """
    sample = [torch.zeros((1, *spec.shape), dtype=getattr(torch, spec.dtype)) for spec in inputs]
    macs, _ = counted_macs(module, sample)
    return macs, sum(p.numel() for p in module.parameters())


def counted_macs(module: nn.Module, sample: Sequence[Tensor]) -> tuple[int, Any]:
    """Run a module in eval mode (on device meta without computing); return MACs and its result."""
    # Imported late, because it loads slowly.
    from torch.utils.flop_counter import FlopCounterMode

    free = _ShapesOfFreeLayers()  # type: ignore[no-untyped-call]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, free:
        output = module(*sample)
    return counter.get_total_flops() // 2, output


class _ShapesOfFreeLayers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode: shapes of norms and activations on meta, which take torch milliseconds."""

    _ACTIVATIONS = frozenset(
        getattr(torch.ops.aten, name).default
        for name in ("relu", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu")
    )

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        is_norm = func is torch.ops.aten.native_batch_norm.default
        if (is_norm or func in self._ACTIVATIONS) and args[0].is_meta:
            alike = torch.empty_like(args[0])
            return (alike, args[0].new_empty(0), args[0].new_empty(0)) if is_norm else alike
        return func(*args, **(kwargs or {}))


def parameter_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's names, shapes and bytes, independent of its order."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
