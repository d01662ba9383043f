"""Weights of a supernet: matching of keys, slicing to the size of a subnet."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.errors import InputError
from hwsearch.supernets.checkpoint_files import read_state as read_state
from hwsearch.supernets.interface import Card

Renamer: TypeAlias = Callable[[str], str | None]
RANDOM = "random:"


def bundled_file(supernet: str, name: str) -> Path:
    """Return the path of a file that ships with a supernet."""
    return Path(str(files("hwsearch.supernets"))) / "bundled" / supernet / name


def bundled_card(supernet: str) -> Card:
    """Read the card that ships with a supernet."""
    facts = json.loads(bundled_file(supernet, "card.json").read_text(encoding="utf-8"))
    named = {
        field: facts.pop(field) for field in ("name", "description", "licence", "source", "data")
    }
    return Card(**named, facts=facts)


def is_random(checkpoint: str | None) -> bool:
    """Return whether a checkpoint means seeded random weights."""
    return checkpoint is not None and checkpoint.startswith(RANDOM)


def seed_of(checkpoint: str | None) -> int | None:
    """Return the seed in ``"random:SEED"``, or None for a checkpoint."""
    if checkpoint is None or not is_random(checkpoint):
        return None
    seed = checkpoint.removeprefix(RANDOM)
    if not seed.isdecimal():
        raise InputError(f"checkpoint {checkpoint!r}: write random:SEED with an integer, random:0")
    return int(seed)


def parameter_digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's names, shapes and bytes, independent of its order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFit:
    """Comparison of a state dict with the expected tensors: missing and surplus keys, shapes."""

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    shapes: tuple[str, ...]
    expected: int

    @property
    def exact(self) -> bool:
        """Return whether keys and shapes are those expected."""
        return not (self.missing or self.surplus or self.shapes)

    @property
    def share(self) -> float:
        """Return the share of the expected tensors that are present in their shape."""
        return 1 - (len(self.missing) + len(self.shapes)) / max(self.expected, 1)

    def __str__(self) -> str:
        found = (
            ("keys missing", self.missing),
            ("keys unexpected", self.surplus),
            ("shapes differ", self.shapes),
        )
        return "; ".join(
            f"{len(those)} {kind} (first: {those[0]})" for kind, those in found if those
        )


class StateMismatchError(InputError):
    """The state dict ``state`` is not of the supernet that it was given to."""

    def __init__(self, message: str, state: Mapping[str, Tensor]) -> None:
        super().__init__(message)
        self.state = state


def fit_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], rename: Renamer = str
) -> tuple[StateFit, dict[str, Tensor]]:
    """Compare keys and shapes, ignoring counters of batch norms (``num_batches_tracked``).

    Prefixes that wrappers add to all names, such as ``module.`` of DataParallel or ``_orig_mod.``
    of ``torch.compile``, are removed where the names fit without them. ``rename`` maps a key of
    the file to ours, or to None if it is not needed. Return also the state dict under our names.
    """
    fits: list[tuple[StateFit, dict[str, Tensor]]] = []
    for unwrapped in _unwrapped(state, len(expected) // 2):
        named = ((rename(key), tensor) for key, tensor in unwrapped.items())
        ours = {key: tensor for key, tensor in named if key is not None}
        fits.append((_fit(ours, expected), ours))
        if fits[-1][0].exact:
            return fits[-1]
    return max(fits, key=lambda each: each[0].share)


def _unwrapped(state: Mapping[str, Tensor], least: int) -> Iterator[Mapping[str, Tensor]]:
    """Yield a state dict and its sub-dicts below a first name, with at least ``least`` tensors."""
    yield state
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        first, dot, rest = key.partition(".")
        if dot:
            parts.setdefault(first, {})[rest] = tensor
    for part in parts.values():
        if len(part) >= max(least, 1):
            yield from _unwrapped(part, least)


def _fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> StateFit:
    return StateFit(
        missing=tuple(key for key in expected if key not in state),
        surplus=tuple(
            key for key in state if key not in expected and not key.endswith("num_batches_tracked")
        ),
        shapes=tuple(
            f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ),
        expected=len(expected),
    )


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
