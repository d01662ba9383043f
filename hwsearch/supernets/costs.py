"""MACs and parameters of a PyTorch module, counted by running it once on one sample."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from hwsearch.supernets.base import TensorSpec


def module_costs(module: nn.Module, inputs: Iterable["TensorSpec"]) -> tuple[int, int]:
    """Count the MACs and the parameters of a module for one sample.

    Convolutions, linear layers and matrix products count, one multiply-accumulate for each
    product in them; biases, norms, activations and additions are free.

    Args:
        module: A network in eval mode.
        inputs: Its inputs, in the order of ``forward``.

    Returns:
        (MACs, parameters).
    """
    # Imported late: it pulls in half of torch's tracing machinery.
    from torch.utils.flop_counter import FlopCounterMode

    sample = [torch.zeros((1, *spec.shape), dtype=getattr(torch, spec.dtype)) for spec in inputs]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*sample)
    return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters())


def conv2d_macs(weight_shape: tuple[int, ...], out_height: int, out_width: int) -> int:
    """MACs of a 2-D convolution: (out, in / groups, kh, kw) weights at every output pixel."""
    out, per_group, height, width = weight_shape
    return out * per_group * height * width * out_height * out_width


def parameter_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of a state dict, independent of its order."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
