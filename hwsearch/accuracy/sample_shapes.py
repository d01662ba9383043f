"""Shapes of samples in data, for axes that a plain model leaves open."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.lib import format as npy

from hwsearch.accuracy.sources import source_of
from hwsearch.accuracy.task import NO_DATA, SPLITS
from hwsearch.accuracy.text import LineTokenizer, read_lines, token_inputs
from hwsearch.models.input_spec import input_spec_of, open_inputs

Header = tuple[tuple[int, ...], np.dtype[Any]]


def sample_shapes(
    spec: str, model: onnx.ModelProto, folder: Path | None = None
) -> dict[str, tuple[int, ...]]:
    """Return input -> shape of a sample, for the inputs whose shapes a model leaves open.

    Arrays have their own; lines of text the length that covers nearly all of them. Image files
    and functions tell nothing. Files that cannot be read tell nothing either: `load_task` refuses
    them.

    Args:
        spec: A data spec as `hwsearch.accuracy.sources.load_task` takes it.
        model: The plain model.
        folder: The model's, where its tokenizer lies.

    Raises:
        InputError: There is no such text file or no tokenizer for it.
    """
    names = open_inputs(model)
    if not names or spec in ("bundled", NO_DATA):
        return {}
    kind, path = source_of(spec)
    if kind == "text":
        roles = token_inputs(f"data {spec!r}", input_spec_of(model))
        tokens = [name for name in names if name in roles]
        if len(tokens) < len(roles):
            return {}  # the length is that of another input
        folders = [*filter(None, [folder]), path.parent]
        texts = read_lines(path, (), "unneeded").texts
        return dict.fromkeys(tokens, (LineTokenizer(folders).length_for(texts),))
    if kind != "npz":
        return {}
    shapes = {}
    headers, n_inputs = _headers(path), len(model.graph.input)
    for name, layout in names.items():
        for key in _keys(name, headers, n_inputs):
            (_, *shape), dtype = headers[key]
            if dtype == np.uint8 and len(shape) == 3 and layout == "NCHW":
                shape = [shape[2], *shape[:2]]
            shapes[name] = tuple(shape)
    return shapes


def _keys(name: str, headers: Mapping[str, Header], n_inputs: int) -> list[str]:
    """Return the names of the arrays of an input, which are arrays of samples."""
    others = [key for key in headers if key != "target"]
    only = others if n_inputs == len(others) == 1 else []
    named = (name, *(f"{split}.{name}" for split in SPLITS), *only)
    return [key for key in named if key in headers and headers[key][0]]


def _headers(path: Path) -> dict[str, Header]:
    """Return name -> shape and type of the arrays in a ``.npz``, whose numbers are not read."""
    found: dict[str, Header] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    read = npy.read_array_header_1_0
                    if npy.read_magic(file) != (1, 0):
                        read = npy.read_array_header_2_0
                    shape, _, dtype = read(file)
                found[name.removesuffix(".npy")] = (shape, dtype)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
    return found
