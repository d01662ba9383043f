"""Where samples come from: ``bundled``, files, arrays, a function, or nowhere (``none``)."""

import difflib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch import plugins
from hwsearch.accuracy.cifar10 import read_cifar10
from hwsearch.accuracy.crops import CropMemory, image_preprocess
from hwsearch.accuracy.imagefolder import read_imagefolder
from hwsearch.accuracy.images import ImageSamples
from hwsearch.accuracy.splits import SPLITS, SplitSizes
from hwsearch.accuracy.task import NO_DATA, TOP1, Preprocess, Samples, Task
from hwsearch.errors import InputError, unknown
from hwsearch.files import plain_arrays, unpacked_size
from hwsearch.machine import available_memory_bytes
from hwsearch.supernets.base import InputSpec
from hwsearch.supernets.checkpoints import bundled_file

Arrays = dict[str, dict[str, NDArray[Any]]]
# Cai et al., "Once-for-All", ICLR 2020.
IMAGES_CALIBRATION_BATCH = 200


def load_task(spec: str, input_spec: InputSpec, supernet: str) -> Task:
    """Read the data that a search scores by.

    Args:
        spec: ``bundled`` (what ships with the supernet), ``none``, ``cifar10:FOLDER``,
            ``imagefolder:FOLDER``, ``npz:FILE``, or ``MODULE:FUNCTION`` of a function that takes
            the input spec and returns a `Task`.
        input_spec: What the subnets expect.
        supernet: The name that ``bundled`` refers to.

    Raises:
        InputError: The data are absent, empty, unreadable, or do not fit the inputs.
    """
    if spec == "bundled":
        return _read_npz(spec, bundled_file(supernet, "samples.npz"), input_spec)
    if spec == NO_DATA:
        nothing = Samples({}, np.empty(0, np.int64), {})
        return Task(spec=spec, metric=TOP1, search=nothing, report=nothing)
    kind, colon, rest = spec.partition(":")
    if not (colon and rest):
        raise unknown(
            "data", spec, ["bundled", NO_DATA, *(f"{k}:PATH" for k in _READERS), "MODULE:FUNCTION"]
        )
    if kind in _READERS:
        return _READERS[kind](spec, Path(rest).expanduser(), input_spec)
    task = _task_function(spec, kind, rest)(input_spec)
    if not isinstance(task, Task):
        raise InputError(f"data {spec!r} returned {type(task).__name__}, not hwsearch.Task")
    return task


def _task_function(spec: str, kind: str, rest: str) -> Callable[[InputSpec], object]:
    try:
        function: Callable[[InputSpec], object] = plugins.import_function(spec, "data")
    except InputError as error:
        # A misspelt kind of data looks like a module.
        if difflib.get_close_matches(kind, _READERS):
            raise unknown("data", spec, [f"{k}:{rest}" for k in _READERS]) from error
        raise
    return function


def _read_npz(spec: str, path: Path, input_spec: InputSpec) -> Task:
    """Read arrays named ``SPLIT.INPUT`` and ``SPLIT.target`` for each of the three splits."""
    if not path.is_file():
        raise InputError(f"data {spec!r}: there is no file {str(path)!r}")
    try:
        arrays = _load_arrays(path)
    except Exception as error:
        # NumPy, zipfile and zlib each have errors of their own for a damaged file.
        raise InputError(f"data {spec!r}: {str(path)!r} cannot be read: {error}") from error
    parts: Arrays = {
        split: {
            name.removeprefix(f"{split}."): array
            for name, array in arrays.items()
            if name.startswith(f"{split}.")
        }
        for split in SPLITS
    }
    return _task(spec, parts, input_spec)


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if zipfile.is_zipfile(path):
        size = unpacked_size(path)
        if size > available_memory_bytes():
            raise MemoryError(f"its arrays unpack to {size:,} bytes, and memory has not so many")
    with path.open("rb") as file:
        return plain_arrays(file)


def _read_cifar10(spec: str, path: Path, input_spec: InputSpec) -> Task:
    name = input_spec.inputs[0].name
    splits = read_cifar10(path, SplitSizes())
    parts = {split: {name: images, "target": labels} for split, (images, labels) in splits.items()}
    return _task(spec, parts, input_spec)


def _read_imagefolder(spec: str, path: Path, input_spec: InputSpec) -> Task:
    preprocessing = input_spec.preprocessing
    if preprocessing is None:
        raise InputError(f"data {spec!r}: the inputs of this supernet are no images")
    shapes = [tensor.shape for tensor in input_spec.inputs]
    if shapes != [(3, preprocessing.crop, preprocessing.crop)]:
        raise InputError(
            f"data {spec!r}: the inputs of this supernet are of shape {shapes}, not one RGB image "
            f"(3, {preprocessing.crop}, {preprocessing.crop})"
        )
    splits, warnings = read_imagefolder(path, input_spec.classes)
    memory = CropMemory()
    samples = {
        split: ImageSamples(path, files.paths, files.labels, input_spec, memory)
        for split, files in splits.items()
    }
    return Task(
        spec=spec,
        metric=TOP1,
        search=samples["search"],
        report=samples["report"],
        calibration=samples["calibration"],
        calibration_batch=IMAGES_CALIBRATION_BATCH,
        warnings=warnings,
    )


_READERS: dict[str, Callable[[str, Path, InputSpec], Task]] = {
    "cifar10": _read_cifar10,
    "imagefolder": _read_imagefolder,
    "npz": _read_npz,
}


def _task(spec: str, parts: Arrays, input_spec: InputSpec) -> Task:
    made = {}
    for split in SPLITS:
        arrays = parts.get(split, {})
        if split == "calibration" and not arrays:
            continue
        made[split] = _samples(f"data {spec!r}, split {split}", dict(arrays), input_spec)
    return Task(
        spec=spec,
        metric=TOP1,
        search=made["search"],
        report=made["report"],
        calibration=made.get("calibration"),
    )


def _samples(what: str, arrays: dict[str, NDArray[Any]], input_spec: InputSpec) -> Samples:
    names = [tensor.name for tensor in input_spec.inputs]
    lacking = [name for name in (*names, "target") if name not in arrays]
    if lacking:
        raise InputError(f"{what}: no array {', '.join(lacking)}; it has {', '.join(arrays)}")
    _check_targets(what, arrays["target"], len(input_spec.classes))
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{what}: arrays of different lengths: {lengths}")
    preprocess: dict[str, Preprocess] = {}
    for tensor in input_spec.inputs:
        array = arrays[tensor.name]
        expected: tuple[int, ...] = tensor.shape
        if array.dtype == np.uint8 and input_spec.preprocessing is not None:
            preprocess[tensor.name] = image_preprocess(input_spec.preprocessing)
            expected = (*tensor.shape[1:], tensor.shape[0])
        elif array.dtype.name != tensor.dtype:
            raise InputError(f"{what}: {tensor.name} is {array.dtype}, not {tensor.dtype}")
        if array.shape[1:] != expected:
            raise InputError(
                f"{what}: {tensor.name} holds samples of shape {array.shape[1:]}, not {expected}"
            )
    inputs = {name: arrays[name] for name in names}
    return Samples(inputs, arrays["target"].astype(np.int64), preprocess)


def _check_targets(what: str, targets: NDArray[Any], classes: int) -> None:
    if targets.ndim != 1:
        raise InputError(f"{what}: target has shape {targets.shape}, not (n,)")
    if targets.dtype.kind not in "biu":
        raise InputError(f"{what}: target is {targets.dtype}, not whole numbers")
    strange = targets[(targets < 0) | (targets >= classes)] if classes else targets[:0]
    if len(strange):
        raise InputError(
            f"{what}: target {strange[0]}, but there are {classes} classes, 0 to {classes - 1}"
        )
