"""Weights of a supernet: matching of keys, slicing to the size of a subnet."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.errors import InputError
from hwsearch.supernets.checkpoint_files import read_state as read_state
from hwsearch.supernets.state_fit import Renamer, StateMismatchError, fit_state
from hwsearch.supernets.weight_sources import seed_of as seed_of


def parameter_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's names, shapes and bytes, independent of its order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def match_state(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    path: str | Path,
    supernet: str,
    rename: Renamer = str,
) -> dict[str, Tensor]:
    """Return the expected entries of a state dict, in float32 and in the expected order.

    Raises:
        StateMismatchError: Keys are missing or unexpected, or a shape differs.
        InputError: A number is not finite.
    """
    fit, ours = fit_state(state, expected, rename)
    if not fit.exact:
        raise StateMismatchError(
            f"checkpoint {str(path)!r} is not of supernet {supernet!r}: {fit}. "
            "Give the checkpoint of this supernet, or the supernet of this checkpoint.",
            state,
        )
    matched = {key: ours[key].detach().to(torch.float32).contiguous() for key in expected}
    broken = next((key for key in expected if not torch.isfinite(matched[key]).all()), None)
    if broken is not None:
        raise InputError(
            f"checkpoint {str(path)!r}: {broken!r} holds NaN or infinite numbers, in float32"
        )
    return matched


def leading_weights(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return copies of a subnet's tensors, sliced from the full ones; see `leading_weight`."""
    return {
        name: leading_weight(state, name, tensor.shape, tensor.dtype).clone()
        for name, tensor in network.state_dict().items()
    }


def leading_weight(
    state: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Slice one tensor of a subnet from the full weights, as a view where possible.

    The leading entries of every axis are taken, and the centre of a smaller kernel. Where the
    state holds matrices (``conv.7to5_matrix`` for ``conv.weight``), each smaller kernel is
    the centre of the next larger one times its matrix (Cai et al., "Once-for-All", ICLR 2020,
    section 3.3). Missing batch statistics are those of an untrained norm: mean 0, variance 1.
    """
    full = state.get(name)
    if full is None:
        return torch.full(shape, 1 if name.endswith("running_var") else 0, dtype=dtype)
    if full.shape == shape:
        return full
    if len(shape) == 4 and full.shape[2:] != shape[2:]:
        leading = full[: shape[0], : shape[1]]
        return _shrink_kernel(state, name.removesuffix("weight"), leading, shape[3])
    return full[tuple(slice(size) for size in shape)]


def _shrink_kernel(state: Mapping[str, Tensor], prefix: str, kernel: Tensor, side: int) -> Tensor:
    """Shrink (out, in, k, k) kernels, by the matrices of the state where it holds them."""
    for smaller in range(kernel.shape[3] - 2, side - 1, -2):
        matrix = state.get(f"{prefix}{kernel.shape[3]}to{smaller}_matrix")
        if matrix is not None:
            centre = _centre(kernel, smaller).flatten(2)
            kernel = functional.linear(centre, matrix).reshape(*kernel.shape[:2], smaller, smaller)
    return _centre(kernel, side)


def _centre(kernel: Tensor, side: int) -> Tensor:
    start = (kernel.shape[3] - side) // 2
    return kernel[:, :, start : start + side, start : start + side]
