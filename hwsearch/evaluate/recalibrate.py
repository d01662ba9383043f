"""Batch statistics of a subnet, estimated from calibration samples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.errors import EvaluationError
from hwsearch.evaluate.memory import freed_memory_kept

# So many samples of a layer's input stay in a processor's cache between mean and variance.
AT_A_TIME = 4


class Moments:
    """Weighted sums of one norm's batch means and biased variances."""

    def __init__(self) -> None:
        self.samples = 0
        self.mean: Tensor | float = 0.0
        self.var: Tensor | float = 0.0

    def hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Add what is about to pass the norm, and let it normalise by that."""
        mean, var = batch_moments(args[0])
        samples = len(args[0])
        self.samples += samples
        self.mean = self.mean + samples * mean
        self.var = self.var + samples * var
        set_statistics(module, mean, var)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance over all batches: (channels,) and (channels,), float64.

        Raises:
            EvaluationError: There were no batches, or a statistic is not finite.
        """
        if not self.samples:
            raise EvaluationError("recalibration needs at least one batch that reaches every norm")
        mean = torch.as_tensor(self.mean) / self.samples
        var = torch.as_tensor(self.var) / self.samples
        if not (torch.isfinite(mean).all() and torch.isfinite(var).all()):
            raise EvaluationError("recalibration gave batch statistics that are not finite")
        return mean, var


def batch_moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of every channel, in double precision.

    Sums are of few values in single precision, and of those sums in double: torch's own batch
    norm adds up all values of a channels-last batch in single precision, and is off by 0.5% of
    the variance for 200 images of 112 by 112.

    Args:
        values: (n, channels, ...), n from 1 up.

    Returns:
        (channels,) and (channels,), float64.
    """
    rows = values.reshape(*values.shape[:2], -1).transpose(1, 2)
    count = rows.shape[0] * rows.shape[1]
    parts = torch.split(rows, AT_A_TIME)
    mean = torch.stack([part.sum(1).double().sum(0) for part in parts]).sum(0) / count
    centre = mean.to(values.dtype)
    squares = [(part - centre).square_().sum(1).double().sum(0) for part in parts]
    return mean, torch.stack(squares).sum(0) / count


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
    with freed_memory_kept():
        for batch in batches:
            run_adapting(subnet, tensors_of(batch), moments)
    for norm, moment in moments.items():
        set_statistics(norm, *moment.statistics())
    return subnet


def norms_of(module: nn.Module, norms: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """Return the modules of these types in a module, in order."""
    return [each for each in module.modules() if norms and isinstance(each, norms)]


def run_adapting(
    module: nn.Module, inputs: Sequence[Tensor], moments: Mapping[nn.Module, Moments]
) -> Any:
    """Run a module in eval mode on a batch whose own statistics each norm normalises by.

    Args:
        module: The module.
        inputs: What ``forward`` takes.
        moments: Receive the statistics, for each norm.
    """
    handles = [norm.register_forward_pre_hook(m.hook) for norm, m in moments.items()]
    try:
        with torch.no_grad():
            return module(*inputs)
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(batch: Mapping[str, NDArray[Any]]) -> list[Tensor]:
    """Return a batch as what ``forward`` takes, images channels-last."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in batch.values()]
    return [
        each.to(memory_format=torch.channels_last) if each.ndim == 4 else each for each in tensors
    ]


def set_statistics(norm: nn.Module, mean: Tensor, var: Tensor) -> None:
    """Let a norm normalise by these."""
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(var)  # type: ignore[operator]
