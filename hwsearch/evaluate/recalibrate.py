"""Batch statistics of a subnet, estimated from calibration samples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.errors import EvaluationError

CALIBRATION_BATCH = 125


class _Moments:
    """Weighted sums of one norm's batch means and biased variances."""

    def __init__(self) -> None:
        self.samples = 0
        self.mean: Tensor | float = 0.0
        self.var: Tensor | float = 0.0

    def hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG002
        """Add what the norm has just found; with momentum 1 its statistics are the batch's."""
        samples = len(args[0])
        values = args[0].numel() / args[0].shape[1]
        biased = (values - 1) / values
        self.samples += samples
        self.mean = self.mean + samples * module.running_mean.double()  # type: ignore[operator]
        self.var = self.var + samples * biased * module.running_var.double()  # type: ignore[operator]


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
    found = [module for module in subnet.modules() if norms and isinstance(module, norms)]
    if not found:
        return subnet.eval()
    moments = {module: _Moments() for module in found}
    handles = [module.register_forward_hook(m.hook) for module, m in moments.items()]
    kept = {module: module.momentum for module in found}
    subnet.eval()
    try:
        for module in found:
            module.train()
            module.reset_running_stats()  # type: ignore[operator]
            module.momentum = 1.0  # type: ignore[assignment]
        with torch.no_grad():
            for batch in batches:
                subnet(*(_tensor(array) for array in batch.values()))
    finally:
        for handle in handles:
            handle.remove()
        for module in found:
            module.momentum = kept[module]
        subnet.eval()
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
    module.running_mean.copy_(mean)  # type: ignore[operator]
    module.running_var.copy_(var)  # type: ignore[operator]
