"""Batch statistics of a subnet, estimated from calibration samples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.errors import EvaluationError

# So many samples of a layer's input stay in a processor's cache between mean and variance.
AT_A_TIME = 4


class _Moments:
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
        _set(module, mean, var)


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
    found = [module for module in subnet.modules() if norms and isinstance(module, norms)]
    if not found:
        return subnet
    moments = {module: _Moments() for module in found}
    handles = [module.register_forward_pre_hook(m.hook) for module, m in moments.items()]
    try:
        with torch.no_grad():
            for batch in batches:
                subnet(*(_tensor(array) for array in batch.values()))
    finally:
        for handle in handles:
            handle.remove()
    for module, moment in moments.items():
        _store(module, moment)
    return subnet


def _tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _store(module: nn.Module, moment: _Moments) -> None:
    if not moment.samples:
        raise EvaluationError("recalibration needs at least one batch that reaches every norm")
    mean = torch.as_tensor(moment.mean) / moment.samples
    var = torch.as_tensor(moment.var) / moment.samples
    if not (torch.isfinite(mean).all() and torch.isfinite(var).all()):
        raise EvaluationError("recalibration gave batch statistics that are not finite")
    _set(module, mean, var)


def _set(module: nn.Module, mean: Tensor, var: Tensor) -> None:
    module.running_mean.copy_(mean)  # type: ignore[operator]
    module.running_var.copy_(var)  # type: ignore[operator]
