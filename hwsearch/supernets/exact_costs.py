"""Exact costs of architectures: MACs and parameters, by blocks where subnets are chains."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwsearch.chains import BlocksOf, ChainIndex
from hwsearch.errors import InputError
from hwsearch.lookup_tables import LookupTableSum, block_tables
from hwsearch.restriction import widened
from hwsearch.space import Architecture, Architectures, SearchSpace

logger = logging.getLogger(__name__)
# Building the block index takes as long as counting about this many architectures.
WORTH_AN_INDEX = 200


class ExactCosts:
    """MACs and parameters of architectures.

    A chain of blocks is looked up in the block index of its space, built once enough
    architectures were asked for. Other architectures are counted once and cached.
    """

    def __init__(self, blocks: BlocksOf, count: Callable[[Architecture], tuple[int, int]]) -> None:
        self._blocks, self._count = blocks, count
        self._counted: dict[str, tuple[int, int]] = {}
        self._sums: dict[ChainIndex, LookupTableSum] = {}
        self._without_index: set[SearchSpace] = set()

    def of(self, archs: Architectures, which: int) -> NDArray[np.int64]:
        """Return the MACs (``which`` = 0) or parameters (1) of n architectures: (n,)."""
        many = len(archs) + len(self._counted) >= WORTH_AN_INDEX
        found = self.index(archs, build=many)
        if found is not None:
            index, own = found
            sums = self._sums[index](own)[:, which]
            unknown = np.isnan(sums)
            if not unknown.any():
                return sums.astype(np.int64)
            try:
                index.numbers(own[unknown])
            except InputError as error:
                del self._sums[index]
                self._give_up(archs.space, error)
        keys = archs.ids
        for arch, key in zip(archs, keys, strict=True):
            if key not in self._counted:
                self._counted[key] = self._count(arch)
        return np.array([self._counted[key][which] for key in keys], dtype=np.int64)

    def index(
        self, archs: Architectures, *, build: bool = True
    ) -> tuple[ChainIndex, Architectures] | None:
        """Return a block index, and the architectures in its space; None without an index.

        ``build`` makes one where there is none yet.
        """
        space = archs.space
        found = next((each for each in self._sums if _holds(each.space, space)), None)
        if found is None:
            if not build or space in self._without_index:
                return None
            try:
                found = ChainIndex(space, self._blocks)
            except Exception as error:  # noqa: BLE001 - a family is a stranger's code
                # Counting one by one then names the architecture that fails.
                self._give_up(space, error)
                return None
            costs = block_tables(found, np.column_stack([found.macs, found.params]))
            self._sums[found] = LookupTableSum(space, costs)
        return found, archs if space == found.space else widened(archs, found.space)

    def _give_up(self, space: SearchSpace, reason: Exception) -> None:
        logger.info("no block index: architectures are counted one by one, because %s", reason)
        self._without_index.add(space)


def _holds(space: SearchSpace, part: SearchSpace) -> bool:
    """Return whether a space has every choice and option of another."""
    if space == part:
        return True
    options = {choice.name: choice.options for choice in space.choices}
    return all(set(c.options) <= set(options.get(c.name, ())) for c in part.choices)
