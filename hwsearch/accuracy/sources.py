"""Sources of samples: ``bundled``, files, arrays, a function, or ``none``."""

import difflib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch import plugins
from hwsearch.accuracy.checks import check_task, samples_of
from hwsearch.accuracy.cifar10 import CLASSES, read_cifar10
from hwsearch.accuracy.classes import are_numbers, first_few, indices_by_name
from hwsearch.accuracy.decoding import crop_size
from hwsearch.accuracy.imagefolder import read_imagefolder
from hwsearch.accuracy.images import DecodedImageCache, ImageSamples
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.task import (
    CALIBRATION_BATCH,
    NO_DATA,
    SPLITS,
    Samples,
    SplitSamples,
    SplitSizes,
    Task,
)
from hwsearch.errors import DataError, InputError, unknown
from hwsearch.files import plain_arrays, unpacked_size
from hwsearch.machine import available_memory_bytes
from hwsearch.supernets.checkpoints import bundled_file
from hwsearch.supernets.interface import InputSpec

Read = tuple[dict[str, SplitSamples], tuple[str, ...]]  # samples of each split; warnings
# Cai et al., "Once-for-All", ICLR 2020.
IMAGES_CALIBRATION_BATCH = 200


def load_task(spec: str, input_spec: InputSpec, supernet: str) -> Task:
    """Read the data by which a search scores.

    Args:
        spec: ``bundled`` (the supernet's own data), ``none``, ``cifar10:FOLDER``,
            ``imagefolder:FOLDER``, ``npz:FILE``, or ``MODULE:FUNCTION`` of a function that takes
            the input spec and returns a `Task`.
        input_spec: Input spec of the subnets.
        supernet: The name that ``bundled`` refers to.

    Raises:
        InputError: The data are absent, empty, unreadable, or do not fit the inputs.
    """
    if spec == NO_DATA:
        nothing = Samples({}, np.empty(0, np.int64), {})
        return Task(spec=spec, metric=TOP1, search=nothing, report=nothing)
    kind, _, rest = spec.partition(":")
    if spec == "bundled":
        kind, rest = "npz", str(bundled_file(supernet, "samples.npz"))
    if not rest:
        paths = (f"{kind}:PATH" for kind in _READERS)
        raise unknown("data", spec, ["bundled", NO_DATA, *paths, "MODULE:FUNCTION"])
    if kind in _READERS:
        samples, warnings = _READERS[kind](spec, Path(rest).expanduser(), input_spec)
        batch = IMAGES_CALIBRATION_BATCH if kind == "imagefolder" else CALIBRATION_BATCH
        return Task(spec=spec, metric=TOP1, **samples, calibration_batch=batch, warnings=warnings)
    try:
        function = plugins.import_function(spec, "data")
    except InputError as error:
        # A misspelt kind of data looks like a module.
        if difflib.get_close_matches(kind, _READERS):
            raise unknown("data", spec, [f"{k}:{rest}" for k in _READERS]) from error
        raise
    task = function(input_spec)
    if not isinstance(task, Task):
        raise InputError(f"data {spec!r} returned {type(task).__name__}, not hwsearch.Task")
    check_task(task, input_spec)
    return task


def _read_npz(spec: str, path: Path, input_spec: InputSpec) -> Read:
    """Read arrays named ``SPLIT.INPUT`` and ``SPLIT.target`` for each of the three splits."""
    if not path.is_file():
        raise InputError(f"data {spec!r}: there is no file {str(path)!r}")
    try:
        arrays = _load_arrays(path)
    except Exception as error:
        # NumPy, zipfile and zlib raise different errors for a damaged file.
        raise InputError(f"data {spec!r}: {str(path)!r} cannot be read: {error}") from error
    parts: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in SPLITS}
    strange = []
    for name, array in arrays.items():
        split, _, rest = name.partition(".")
        if split in parts:
            parts[split][rest] = array
        else:
            strange.append(name)
    if strange and not all(parts[split] for split in ("search", "report")):
        raise InputError(
            f"data {spec!r}: its arrays {first_few(strange)} belong to no split; name them "
            f"SPLIT.INPUT and SPLIT.target, where SPLIT is one of {', '.join(SPLITS)}"
        )
    return _samples(spec, parts, input_spec), ()


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if zipfile.is_zipfile(path):
        size = unpacked_size(path)
        if size > available_memory_bytes():
            raise MemoryError(f"its arrays unpack to {size:,} bytes, and memory has not so many")
    with path.open("rb") as file:
        return plain_arrays(file)


def _read_cifar10(spec: str, path: Path, input_spec: InputSpec) -> Read:
    splits, classes = read_cifar10(path, SplitSizes()), input_spec.classes
    indices = indices_by_name(
        f"data {spec!r}", CLASSES, classes, "Give data of the supernet's own classes."
    )
    warnings: tuple[str, ...] = ()
    if indices is not None:
        order = np.array([indices[name] for name in CLASSES])
        splits = {split: (images, order[labels]) for split, (images, labels) in splits.items()}
    elif classes and not (are_numbers(classes) and len(classes) == len(CLASSES)):
        warnings = (
            f"data {spec!r}: none of CIFAR-10's classes is one of the supernet's "
            f"{len(classes)} ({first_few(classes, 3)}): they are taken as classes 0 to 9, "
            "and accuracies mean nothing unless that is so",
        )
    name = input_spec.inputs[0].name
    parts = {split: {name: images, "target": labels} for split, (images, labels) in splits.items()}
    return _samples(spec, parts, input_spec), warnings


def _samples(
    spec: str, parts: dict[str, dict[str, NDArray[Any]]], input_spec: InputSpec
) -> dict[str, SplitSamples]:
    return {
        split: samples_of(f"data {spec!r}, split {split}", parts[split], input_spec)
        for split in SPLITS
        if parts[split] or split != "calibration"
    }


def _read_imagefolder(spec: str, path: Path, input_spec: InputSpec) -> Read:
    try:
        crop_size(input_spec)
    except DataError as error:
        raise InputError(f"data {spec!r}: {error}") from error
    splits, warnings = read_imagefolder(path, input_spec.classes)
    cache = DecodedImageCache()
    return {
        split: ImageSamples(path, *files, input_spec, cache) for split, files in splits.items()
    }, warnings


_READERS: dict[str, Callable[[str, Path, InputSpec], Read]] = {
    "cifar10": _read_cifar10,
    "imagefolder": _read_imagefolder,
    "npz": _read_npz,
}
