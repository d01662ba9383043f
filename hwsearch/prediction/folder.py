"""Folders of saved predictors: a JSON card and npz arrays; see predictors/README.md."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError
from hwsearch.files import (
    MAX_BYTES,
    parsed_json,
    plain_arrays,
    read_bounded,
    staged_folder,
    unpacked_size,
)
from hwsearch.space import SearchSpace

FORMAT: Final = "hwsearch predictor"
SCHEMA: Final = 1
CARD: Final = "card.json"
PARAMETERS: Final = "parameters.npz"
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError)
_OWN_ENTRIES: Final = ("format", "schema", "surrogate", "parameters_sha256", "space")
_AGAIN: Final = "give a folder that Predictor.save wrote"


def write_folder(
    folder: Path,
    surrogate: str,
    space: SearchSpace,
    state: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write a predictor atomically, with further entries of its card; the bytes are repeatable."""
    parameters = packed_arrays(state)
    card = {
        "format": FORMAT,
        "schema": SCHEMA,
        **facts,
        "surrogate": surrogate,
        "parameters_sha256": hashlib.sha256(parameters).hexdigest(),
        "space": json.loads(space.to_json()),
    }
    with staged_folder(folder) as staged:
        (staged / PARAMETERS).write_bytes(parameters)
        text = json.dumps(card, indent=1, allow_nan=False)
        (staged / CARD).write_text(text + "\n", encoding="utf-8")


def read_folder(
    folder: Path,
) -> tuple[str, SearchSpace, dict[str, NDArray[Any]], dict[str, Any]]:
    """Return what `write_folder` wrote; raise InputError where it is missing or invalid."""
    what = f"predictor {str(folder)!r}"
    card = _read_card(folder, what)
    try:
        content = read_bounded(folder / PARAMETERS, MAX_BYTES)
        state = unpacked_arrays(content)
        space = SearchSpace.from_json(json.dumps(card["space"]))
    except _UNREADABLE as error:
        raise InputError(f"{what} is damaged: {error}; {_AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != card.get("parameters_sha256"):
        raise InputError(f"{what} is damaged: {PARAMETERS} is not the one of its card; {_AGAIN}")
    facts = {name: value for name, value in card.items() if name not in _OWN_ENTRIES}
    return str(card.get("surrogate")), space, state, facts


def _read_card(folder: Path, what: str) -> Mapping[str, Any]:
    if not (folder / CARD).is_file():
        raise InputError(f"{what} has no {CARD}; {_AGAIN}")
    try:
        card = parsed_json(read_bounded(folder / CARD, MAX_BYTES))
    except _UNREADABLE as error:
        raise InputError(f"{what}: {CARD} cannot be read: {error}; {_AGAIN}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise InputError(f"{what}: {CARD} has no 'format': {FORMAT!r}; {_AGAIN}")
    if card.get("schema") != SCHEMA:
        raise InputError(
            f"{what} has schema {card.get('schema')!r}, and this version of hwsearch reads "
            f"schema {SCHEMA}; use the version that wrote it"
        )
    return card


def packed_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return plain arrays as npz; raise ValueError where one holds objects."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name!r} holds objects")
    file = io.BytesIO()
    # NumPy before 2.2 knows no `allow_pickle` here.
    np.savez_compressed(file, **dict[str, Any](arrays))
    return file.getvalue()


def unpacked_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Read npz from an untrusted source; raise ValueError above the limit, or for other content.

    Raise MemoryError where an array declares more than fits into memory.
    """
    if unpacked_size(io.BytesIO(content)) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES // 2**20} MB")
    return plain_arrays(io.BytesIO(content))
