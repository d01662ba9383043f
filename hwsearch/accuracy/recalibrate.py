"""Batch statistics of a subnet, estimated from calibration samples."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.accuracy.memory import freed_memory_kept
from hwsearch.accuracy.sync_batch_norm import (
    Moments,
    in_parts,
    part_threads,
    run_adapting,
    set_statistics,
)


def recalibrate(
    subnet: nn.Module,
    norms: tuple[type[nn.Module], ...],
    batches: Iterator[dict[str, NDArray[Any]]],
) -> nn.Module:
    """Set the batch statistics of a subnet, in place.

    Every norm's mean and variance become the means of the batches' means and biased variances,
    weighted by batch size; while a batch passes, each norm normalises by that batch's own
    (Cai et al., "Once-for-All", ICLR 2020, appendix B).

    Args:
        subnet: The network; it comes back in eval mode.
        norms: Types of the modules to set; with none of them nothing is run.
        batches: Inputs by name, in the order in which ``forward`` takes them.

    Returns:
        The same network.

    Raises:
        EvaluationError: There were no batches, or a statistic is not finite.
    """
    subnet.eval()
    moments = {norm: Moments() for norm in norms_of(subnet, norms)}
    if not moments:
        return subnet
    with freed_memory_kept(), part_threads() as pool:
        for batch in batches:
            run_adapting(subnet, in_parts(tensors_of(batch)), moments, pool)
    for norm, moment in moments.items():
        set_statistics(norm, *moment.statistics())
    return subnet


def norms_of(module: nn.Module, norms: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """Return the modules of these types in a module, in order."""
    return [each for each in module.modules() if norms and isinstance(each, norms)]


def tensors_of(batch: Mapping[str, NDArray[Any]]) -> list[Tensor]:
    """Return a batch as what ``forward`` takes, images channels-last."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in batch.values()]
    return [
        each.to(memory_format=torch.channels_last) if each.ndim == 4 else each for each in tensors
    ]
