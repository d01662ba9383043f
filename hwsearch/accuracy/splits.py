"""Seeded, stratified, disjoint splits: equal data give equal splits on every machine."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class SplitSizes(NamedTuple):
    """Number of samples of each split where the data suffice."""

    calibration: int = 500
    search: int = 2500
    report: int = 2500

    def within(self, total: int) -> "SplitSizes":
        """Return these sizes, shrunk in proportion to the data, but none to 0."""
        total = min(total, sum(self))
        share = total / sum(self)
        calibration, search = (n and max(1, int(n * share)) for n in self[:2])
        return SplitSizes(calibration, search, total - calibration - search)


SPLITS = SplitSizes._fields


def stratified(
    labels: NDArray[Any], sizes: Sequence[int], seed: int = 0
) -> list[NDArray[np.int64]]:
    """Draw disjoint subsets of these sizes that hold every class of (n,) labels in proportion.

    Returns:
        For each size, sorted indices into ``labels``.
    """
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    # A sample's rank is its relative position within its class, so that any leading part of
    # the order holds all classes in proportion; ties are in the order of the classes.
    order = np.concatenate(shuffled)
    rank = np.concatenate([(np.arange(len(s)) + 0.5) / len(s) for s in shuffled])
    order = order[np.argsort(rank, kind="stable")]
    ends = np.cumsum(sizes)
    return [np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
