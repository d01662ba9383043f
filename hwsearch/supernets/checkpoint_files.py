"""Checkpoint files: formats by content, shards, nested weights, EMA beside raw weights."""

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hwsearch.errors import InputError, unknown
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded

logger = logging.getLogger(__name__)
EMA, RAW = "ema", "raw"
_MOST_LEVELS = 4
_NAME = re.compile(r"(?!\.\.?$)[^/\\:\0]+")  # of a file in the same folder, on every system
_URL = re.compile(r"[a-z][a-z0-9+]+:/", re.IGNORECASE)
# Names of weights that are a moving average over training.
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|shadow)([._]|$)", re.IGNORECASE)
# First bytes of files that are often taken for checkpoints -> what they are, and what to do.
_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file by 'git lfs pull'",
    b"<": "a web page; download the file itself",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it",
    b"\x89HDF": "an HDF5 file; convert its weights to safetensors",
    b"GGUF": "a GGUF file; give the weights in safetensors",
}
# Suffixes of files of weights, as they are found in folders.
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
# Prefixes of names of training state.
_TRAINING = ("optim", "sched", "lr_sched", "scaler", "grad_scaler", "amp", "callbacks", "rng")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights of a checkpoint; ``source`` names the file, with ``#NAME`` if it has several."""

    state: dict[str, Tensor]
    source: str


def read_state(checkpoint: str | Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint by name; see `read_weights`."""
    return read_weights(checkpoint).state


def read_weights(checkpoint: str | Path) -> Weights:
    """Read the weights in a checkpoint.

    Args:
        checkpoint: A safetensors or a torch file of tensors, recognised by content, or the index
            ``*.index.json`` of shards. Weights may lie under a key such as ``state_dict`` or
            ``model``: ``FILE#NAME`` takes those under that key, ``FILE#ema`` the average over
            training (EMA), ``FILE#raw`` the others; by default the average, with a warning. A
            folder stands for its index, or for its only file of weights.

    Raises:
        InputError: The file is absent, truncated, holds code or no weights, holds several sets
            without a preferred one, or lacks the one asked for.
    """
    if _URL.match(str(checkpoint)):
        raise InputError(
            f"checkpoint {str(checkpoint)!r} is a URL; download it, and give its path"
        )
    path, wanted = split_checkpoint(checkpoint)
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} does not exist")
    found = _candidates(path, _read_shards(path) if _is_json(path) else _read_tensors(path))
    name = _chosen(path, list(found), wanted)
    several = len(found) > 1
    if several and wanted is None:
        logger.warning(
            "checkpoint %r holds %s; %r is taken (write %s#NAME for another)",
            str(path), " and ".join(map(repr, found)), name, path.name,
        )  # fmt: skip
    return Weights(state=found[name], source=f"{path.name}#{name}" if several else path.name)


def split_checkpoint(checkpoint: str | Path) -> tuple[Path, str | None]:
    """Return the file and NAME of ``FILE#NAME``; NAME is None for ``FILE``.

    Raises:
        InputError: It is a folder without an index that has several files of weights, or none.
    """
    path = Path(checkpoint)
    file, hash_, name = str(checkpoint).rpartition("#")
    if not hash_ or path.exists() or "/" in name:
        return _file_in(path), None
    return _file_in(Path(file)), name


def _file_in(path: Path) -> Path:
    """Return the index or the only file of weights in a folder, and a file as it is."""
    if not path.is_dir():
        return path
    entries = sorted(each for each in path.iterdir() if each.is_file())
    found = [each for each in entries if each.name.endswith(".index.json")]
    found = found or [each for each in entries if each.suffix in _SUFFIXES]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"checkpoint {str(path)!r} is a folder with {len(found)} files of weights "
        f"({', '.join(each.name for each in found[:3]) or 'none'}); give one file"
    )


def _refuse_other_file(path: Path) -> None:
    """Refuse a file that begins like another format, or is named as ONNX models are."""
    with path.open("rb") as file:
        head = file.read(32).lstrip()
    kind = next((kind for begin, kind in _OTHER_FILES.items() if head.startswith(begin)), None)
    if kind is None and path.suffix == ".onnx":
        kind = "an ONNX model; give the checkpoint of the supernet"
    if kind is not None:
        raise InputError(f"checkpoint {str(path)!r} is {kind}")


def files_of(path: Path) -> list[Path]:
    """Return a checkpoint's file, and the shards beside it where it is an index."""
    if not _is_json(path):
        return [path]
    try:
        shards = dict.fromkeys(_shard_of(path).values())
    except InputError:  # of a supernet's own function, which may read any file
        return [path]
    return [path, *(file for shard in shards if (file := path.parent / shard).is_file())]


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"{" and not _is_safetensors(path)


def _read_tensors(path: Path) -> Any:
    _refuse_other_file(path)
    if not _is_safetensors(path):
        return _load_torch(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"checkpoint {str(path)!r} is truncated or not a safetensors file: {error}"
        ) from error


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins like safetensors: a header's size, then its JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    begins = head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size
    is_torch = head[:1] == b"\x80" or head[:2] == b"PK"
    return begins or (path.suffix == ".safetensors" and not is_torch)


def _shard_of(path: Path) -> dict[str, str]:
    """Return name of a tensor -> name of its shard, a file in the folder of the index."""
    what = f"checkpoint {str(path)!r}"
    try:
        content = parsed_json(read_bounded(path, MAX_BYTES))
        shard_of: dict[str, Any] = dict(content["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{what} is JSON, but no index of shards ('weight_map' maps tensors to files); give "
            "the file with the weights"
        ) from error
    stray = [s for s in shard_of.values() if not isinstance(s, str) or not _NAME.fullmatch(s)]
    if stray:
        raise InputError(f"{what} names shard {stray[0]!r}, which is no file in its folder")
    return shard_of


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Read the shards that an index names."""
    what, shard_of = f"checkpoint {str(path)!r}", _shard_of(path)
    state: dict[str, Tensor] = {}
    for shard in dict.fromkeys(shard_of.values()):
        file = path.parent / shard
        if not file.is_file():
            n_shards = len(set(shard_of.values()))
            raise InputError(
                f"{what} needs shard {shard!r}, which is not beside it; fetch all {n_shards} "
                "shards into its folder"
            )
        tensors = _read_tensors(file)
        for name in (name for name, each in shard_of.items() if each == shard):
            tensor = tensors.get(name) if isinstance(tensors, Mapping) else None
            if not isinstance(tensor, Tensor):
                raise InputError(f"{what}: shard {shard!r} lacks tensor {name!r}, see its index")
            state[name] = tensor
    return state


def _load_torch(path: Path) -> Any:
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            # It warns of the pickle protocol of files that it then refuses.
            warnings.simplefilter("ignore")
            with path.open("rb") as file:  # by name torch may assume another format
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The message of torch recommends to run the file anyway.
        found = re.search(r"(GLOBAL \S+|Unsupported operand \d+)", str(error))
        reason = f" ({found[1]})" if found else ""
        raise InputError(
            f"checkpoint {str(path)!r} was refused, and nothing in it was run: it is damaged or "
            f"holds more than tensors{reason}. Save its state_dict alone, or convert it to "
            "safetensors where you trust it."
        ) from error
    except Exception as error:
        # Damaged files raise many classes of errors in torch, IndexError among them.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"checkpoint {str(path)!r} is truncated or no torch checkpoint: {reason}"
        ) from error


def _check_archive(path: Path) -> None:
    """Raise ValueError for archives of code or NumPy arrays, and for compressed members.

    Torch compresses none, and they may be zip bombs.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any("/code/" in member.filename for member in members):
        raise ValueError("it is TorchScript, which is code; save the state_dict of the network")
    if members and all(member.filename.endswith(".npy") for member in members):
        raise ValueError("it is an archive of NumPy arrays; save them as safetensors")
    packed = next((m for m in members if m.file_size > m.compress_size), None)
    if packed is not None:
        raise ValueError(f"its member {packed.filename!r:.80} is compressed, as torch writes none")


def _candidates(path: Path, loaded: Any) -> dict[str, dict[str, Tensor]]:
    """Return every set of weights in a loaded file, by its key."""
    if isinstance(loaded, Mapping) and loaded and _is_state(loaded):
        return _averages_apart(dict(loaded))
    found = dict(_nested(loaded)) if isinstance(loaded, Mapping) else {}
    if len(found) == 1:
        return _averages_apart(next(iter(found.values())))
    if found:
        return found
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise InputError(
            f"checkpoint {str(path)!r} holds no state dict, but {type(state).__name__}"
        )
    odd = next(key for key, value in state.items() if not isinstance(value, Tensor))
    raise InputError(
        f"checkpoint {str(path)!r}: {odd!r} is {type(state[odd]).__name__}, not a tensor; "
        "a state dict maps parameter names to tensors"
    )


def _is_state(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _nested(content: Mapping[Any, Any], at: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield name and content of all state dicts below a mapping, except training state."""
    for key, value in content.items():
        name = f"{at}{key}"
        if not isinstance(value, Mapping) or not value or str(key).startswith(_TRAINING):
            continue
        if _is_state(value):
            yield name, dict(value)
        elif name.count(".") < _MOST_LEVELS:
            yield from _nested(value, f"{name}.")


def _averages_apart(state: dict[str, Tensor], at: str = "") -> dict[str, dict[str, Tensor]]:
    """Split a flat state dict with EMA and raw weights by the first part of the names."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        groups.setdefault(key.removeprefix(at).partition(".")[0], {})[key] = tensor
    if len(groups) == 1 and len(state) > 1 and at.count(".") < _MOST_LEVELS:
        return _averages_apart(state, f"{at}{next(iter(groups))}.")
    averages = {name: group for name, group in groups.items() if _AVERAGED.search(name)}
    raw = {
        k: v for name, group in groups.items() if name not in averages for k, v in group.items()
    }
    # A counter such as ``n_averaged`` or a layer of such a name is no EMA.
    averages = {name: group for name, group in averages.items() if 2 * len(group) >= len(raw)}
    return {RAW: raw, **averages} if raw and averages else {RAW: state}


def _chosen(path: Path, names: list[str], wanted: str | None) -> str:
    averaged = [name for name in names if _AVERAGED.search(name)]
    others = [name for name in names if name not in averaged]
    if wanted in names:
        return wanted
    if wanted is None:
        fitting = averaged or others
    elif wanted in (EMA, RAW):
        fitting = averaged if wanted == EMA else others
    else:
        fitting = []
    if not fitting:
        raise unknown(f"weights in checkpoint {str(path)!r}:", str(wanted), names)
    if len(fitting) > 1:
        raise InputError(
            f"checkpoint {str(path)!r} holds {len(fitting)} sets of weights: "
            f"{', '.join(fitting)}. Name one of them: {path.name}#{fitting[0]}"
        )
    return fitting[0]
