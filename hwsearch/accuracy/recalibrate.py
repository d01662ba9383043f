"""Recalibration: batch statistics of a subnet, estimated from calibration samples."""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.accuracy.channel_statistics import BatchAverage, set_statistics
from hwsearch.accuracy.sync_batch_norm import (
    micro_batch_threads,
    micro_batches,
    run_synchronised,
)

# Parameters of mallopt(3): free memory at the end of the heap that is returned to the system, and
# the size from which memory is mapped apart from the heap and returned when freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL = 2**31 - 1
# Upper ends of glibc's own adjustment, which setting either turns off.
_TRIM, _MMAP = 64 << 20, 32 << 20


def recalibrate(
    subnet: nn.Module,
    norms: tuple[type[nn.Module], ...],
    batches: Iterator[dict[str, NDArray[Any]]],
) -> nn.Module:
    """Set the statistics of a subnet's ``norms`` (types) in place, and return it in eval mode.

    Every norm's mean and variance become the means of the batches' means and biased variances,
    weighted by batch size; in a batch, each norm normalises by that batch's own (Cai et al.,
    "Once-for-All", ICLR 2020, appendix B). A batch has inputs by name, in ``forward``'s order.

    Raises:
        EvaluationError: There were no batches, or a statistic is not finite.
    """
    subnet.eval()
    averages = {norm: BatchAverage() for norm in norms_of(subnet, norms)}
    if not averages:
        return subnet
    with freed_memory_kept(), micro_batch_threads() as pool:
        for batch in batches:
            run_synchronised(subnet, micro_batches(tensors_of(batch)), averages, pool)
    for norm, average in averages.items():
        set_statistics(norm, *average.statistics())
    return subnet


def norms_of(module: nn.Module, norms: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """Return the modules of these types in a module, in order."""
    return [each for each in module.modules() if norms and isinstance(each, norms)]


def tensors_of(batch: Mapping[str, NDArray[Any]]) -> list[Tensor]:
    """Return the arguments of ``forward`` for a batch, images channels-last."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in batch.values()]
    return [
        each.to(memory_format=torch.channels_last) if each.ndim == 4 else each for each in tensors
    ]


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep freed memory until the end; elsewhere this does nothing.

    Every layer of a large batch allocates hundreds of megabytes. Page faults of memory that is
    returned to the system and allocated anew took more than half of a recalibration's time.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _ALL)
        libc.mallopt(_MMAP_THRESHOLD, _ALL)
    try:
        yield
    finally:
        with suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, _TRIM)
            libc.mallopt(_MMAP_THRESHOLD, _MMAP)
            libc.malloc_trim(0)
