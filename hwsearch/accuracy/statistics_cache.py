"""Cache of the batch statistics of recalibrated subnets, within a budget of memory."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from hwsearch.accuracy.channel_statistics import set_statistics
from hwsearch.accuracy.recalibrate import norms_of
from hwsearch.machine import available_memory_bytes
from hwsearch.space import Architecture

SHARE_OF_MEMORY = 0.05

Statistics = Sequence[tuple[Tensor, Tensor]]


class StatisticsCache:
    """LRU cache of all norms' statistics by architecture; default: 1/20 of available memory."""

    def __init__(self, norms: tuple[type[nn.Module], ...], budget: int | None = None) -> None:
        self._norms = norms
        self._budget = (
            int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
        )
        self._used = 0
        self._kept: OrderedDict[Architecture, Statistics] = OrderedDict()

    def keep(self, arch: Architecture, subnet: nn.Module) -> None:
        """Store the statistics of a recalibrated subnet."""
        self._forget(arch)
        kept = [
            (norm.running_mean.clone(), norm.running_var.clone())  # type: ignore[operator]
            for norm in norms_of(subnet, self._norms)
        ]
        self._kept[arch] = kept
        self._used += _bytes(kept)
        while self._used > self._budget:
            self._forget(next(iter(self._kept)))

    def restore(self, arch: Architecture, subnet: nn.Module) -> bool:
        """Set stored statistics in place, in eval mode; return whether they were stored."""
        known = self._kept.get(arch)
        if known is None:
            return False
        self._kept.move_to_end(arch)
        subnet.eval()
        for norm, (mean, var) in zip(norms_of(subnet, self._norms), known, strict=True):
            set_statistics(norm, mean, var)
        return True

    def _forget(self, arch: Architecture) -> None:
        self._used -= _bytes(self._kept.pop(arch, ()))


def _bytes(statistics: Statistics) -> int:
    return sum(each.nbytes for pair in statistics for each in pair)
