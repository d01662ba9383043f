"""Reading weights safely: safetensors or tensors-only torch files, matched key by key."""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hwsearch.errors import InputError
from hwsearch.supernets.base import Card


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


def seed_of(checkpoint: str | None) -> int | None:
    """Return the seed in ``"random:SEED"``, or None where the text names a checkpoint.

    Raises:
        InputError: It starts with ``random:`` and no integer from 0 up follows.
    """
    if checkpoint is None or not checkpoint.startswith("random:"):
        return None
    seed = checkpoint.removeprefix("random:")
    if not seed.isdecimal():
        raise InputError(f"checkpoint {checkpoint!r}: write random:SEED with an integer, random:0")
    return int(seed)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors`` or from a torch file that holds tensors only.

    A torch file may hold the state dict itself or keep it under the key ``"state_dict"``.

    Raises:
        InputError: The file is absent, truncated, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"checkpoint {str(path)!r} is truncated or not a safetensors file: {error}"
            ) from error
    return _tensors_only(path, _load_torch(path))


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # It also warns of the pickle protocol of a file that it goes on to refuse.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # What torch says around this invites to run the file all the same.
        found = re.search(r"(GLOBAL \S+|Unsupported operand \d+)", str(error))
        reason = f" ({found[1]})" if found else ""
        raise InputError(
            f"checkpoint {str(path)!r} was refused, and nothing in it was run: it is damaged or "
            f"holds more than tensors{reason}. Save its state_dict alone, or convert it to "
            "safetensors where you trust it."
        ) from error
    except Exception as error:
        # Torch's reader stumbles over a damaged file in many ways, IndexError among them.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"checkpoint {str(path)!r} is truncated or no torch checkpoint: {reason}"
        ) from error


def _tensors_only(path: Path, loaded: Any) -> dict[str, Tensor]:
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise InputError(
            f"checkpoint {str(path)!r} holds no state dict, but {type(state).__name__}"
        )
    odd = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        raise InputError(
            f"checkpoint {str(path)!r}: {odd!r} is {type(state[odd]).__name__}, not a tensor; "
            "a state dict maps parameter names to tensors"
        )
    return dict(state)


def match_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, supernet: str
) -> dict[str, Tensor]:
    """Return the expected entries of a state dict, in float32 and in the expected order.

    Raises:
        InputError: Keys are missing or unexpected, a shape differs, or a number is not finite.
    """
    missing = [key for key in expected if key not in state]
    surplus = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(found)} {kind} (first: {found[0]})"
        for kind, found in (
            ("keys missing", missing),
            ("keys unexpected", surplus),
            ("shapes differ", shapes),
        )
        if found
    ]
    if problems:
        raise InputError(
            f"checkpoint {str(path)!r} is not of supernet {supernet!r}: {'; '.join(problems)}. "
            "Give the checkpoint of this supernet, or the supernet of this checkpoint."
        )
    matched = {key: state[key].detach().to(torch.float32).contiguous() for key in expected}
    broken = next((key for key in expected if not torch.isfinite(matched[key]).all()), None)
    if broken is not None:
        raise InputError(
            f"checkpoint {str(path)!r}: {broken!r} holds NaN or infinite numbers, in float32"
        )
    return matched


def leading_weights(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Cut every parameter of a subnet out of the full ones: the leading entries of each axis.

    Batch statistics come out as those of an untrained norm: mean 0, variance 1.
    """
    weights = {
        name: state[name][tuple(slice(size) for size in parameter.shape)]
        for name, parameter in network.named_parameters()
    }
    for name, buffer in network.named_buffers():
        fill = 1 if name.endswith("running_var") else 0
        weights[name] = torch.full(buffer.shape, fill, dtype=buffer.dtype)
    return weights
