"""Seeded, stratified, disjoint splits: the same images for everyone with the same data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("calibration", "search", "report")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSizes:
    """How many samples each split gets where the data suffice."""

    calibration: int = 500
    search: int = 2500
    report: int = 2500

    def within(self, total: int) -> "SplitSizes":
        """Return these sizes, shrunk in proportion to what there is, but none to nothing."""
        wanted = self.calibration + self.search + self.report
        if total >= wanted:
            return self
        share = total / wanted
        calibration = max(1, int(self.calibration * share)) if self.calibration else 0
        search = max(1, int(self.search * share))
        return SplitSizes(
            calibration=calibration, search=search, report=total - calibration - search
        )


def stratified(
    labels: NDArray[Any], sizes: Sequence[int], seed: int = 0
) -> list[NDArray[np.int64]]:
    """Draw disjoint subsets that hold every class in proportion.

    Args:
        labels: (n,) class of each sample.
        sizes: Wanted size of each subset; their sum is at most n.
        seed: The same labels, sizes and seed give the same subsets.

    Returns:
        For each size, sorted indices into ``labels``.
    """
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    # Each sample's rank is its place within its class as a fraction, so that any leading part
    # of the order holds all classes in proportion; ties fall in the order of the classes.
    order = np.concatenate(shuffled)
    rank = np.concatenate([(np.arange(len(s)) + 0.5) / len(s) for s in shuffled])
    order = order[np.argsort(rank, kind="stable")]
    ends = np.cumsum(sizes)
    return [np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
