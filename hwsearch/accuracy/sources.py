"""Sources of samples: ``bundled``, images, arrays, text, a function, or ``none``."""

import difflib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch import plugins
from hwsearch.accuracy.checks import check_classes, check_task, samples_of
from hwsearch.accuracy.cifar10 import CLASSES, read_cifar10
from hwsearch.accuracy.classes import are_numbers, first_few, indices_by_name
from hwsearch.accuracy.decoding import crop_size
from hwsearch.accuracy.imagefolder import read_imagefolder
from hwsearch.accuracy.images import DecodedImageCache, ImageSamples
from hwsearch.accuracy.metric import TOP1, UNDECIDED, Metric
from hwsearch.accuracy.task import (
    CALIBRATION_BATCH,
    NO_DATA,
    SPLITS,
    Labels,
    Samples,
    SplitSamples,
    SplitSizes,
    Task,
    stratified,
)
from hwsearch.accuracy.text import read_text_samples
from hwsearch.errors import DataError, InputError, unknown
from hwsearch.files import plain_arrays, unpacked_size
from hwsearch.machine import available_memory_bytes
from hwsearch.models.input_spec import holds_scores
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.weight_sources import bundled_file

Read = tuple[dict[str, SplitSamples], tuple[str, ...]]  # samples of each split; warnings
# Cai et al., "Once-for-All", ICLR 2020.
IMAGES_CALIBRATION_BATCH = 200


def load_task(
    spec: str,
    input_spec: InputSpec,
    supernet: str,
    *,
    labels: Labels = "needed",
    folder: Path | None = None,
) -> Task:
    """Read the data by which a search scores.

    Args:
        spec: ``bundled`` (the supernet's own data), ``none``, ``cifar10:FOLDER``,
            ``imagefolder:FOLDER``, ``npz:FILE``, ``text:FILE``, or ``MODULE:FUNCTION`` of a
            function that takes the input spec and returns a `Task`.
        input_spec: Input spec of the subnets.
        supernet: The name that ``bundled`` refers to.
        labels: Whether the data may be without. A task without labels has to be `answered` by an
            original model before it scores.
        folder: The model's, where its tokenizer lies; text is also looked at beside its file.

    Raises:
        InputError: The data are absent, empty, unreadable, or do not fit the inputs.
    """
    if spec == NO_DATA:
        nothing = Samples({}, np.empty(0, np.int64), {})
        return Task(spec=spec, metric=TOP1, search=nothing, report=nothing)
    kind, path = source_of(spec, supernet)
    if kind in _READERS:
        source = Source(spec, path, input_spec, labels, folder)
        samples, warnings = _READERS[kind](source)
        batch = IMAGES_CALIBRATION_BATCH if kind == "imagefolder" else CALIBRATION_BATCH
        task = Task(
            spec=spec,
            metric=top1_of(input_spec),
            search=samples["search"],
            report=samples["report"],
            calibration=samples.get("calibration"),
            calibration_batch=batch,
            warnings=warnings,
        )
        return task if task.labelled else replace(task, metric=UNDECIDED)
    try:
        function = plugins.import_function(spec, "data")
    except InputError as error:
        # A misspelt kind of data looks like a module.
        if difflib.get_close_matches(kind, _READERS):
            raise unknown("data", spec, [f"{k}:{path}" for k in _READERS]) from error
        raise
    task = function(input_spec)
    if not isinstance(task, Task):
        raise InputError(f"data {spec!r} returned {type(task).__name__}, not hwsearch.Task")
    check_task(task, input_spec)
    if labels == "needed" and task.metric is UNDECIDED:
        raise InputError(f"data {spec!r} returned samples without labels; give it a metric")
    return task


def source_of(spec: str, supernet: str = "") -> tuple[str, Path]:
    """Return kind and path of a data spec; raise InputError where it has no path."""
    kind, _, rest = spec.partition(":")
    if spec == "bundled":
        return "npz", bundled_file(supernet, "samples.npz")
    if not rest:
        paths = (f"{kind}:PATH" for kind in _READERS)
        kinds = {"": "imagefolder", ".npz": "npz", ".txt": "text", ".tsv": "text"}
        kind = kinds.get(Path(spec).suffix.lower(), "")
        step = f"For that file or folder: {kind}:{spec}" if kind and Path(spec).exists() else ""
        raise unknown("data", spec, ["bundled", NO_DATA, *paths, "MODULE:FUNCTION"], step)
    return kind, Path(rest).expanduser()


def top1_of(spec: InputSpec) -> Metric:
    """Return top-1 of the output that holds scores of classes."""
    if len(spec.outputs) == 1 or TOP1.output in spec.outputs:
        return TOP1
    scores = [name for name in spec.outputs if holds_scores(name)]
    return replace(TOP1, output=scores[0]) if scores else TOP1


@dataclass(frozen=True, slots=True)
class Source:
    """Where data are read from, and what for; see `load_task`."""

    spec: str
    path: Path
    input_spec: InputSpec
    labels: Labels
    folder: Path | None

    @property
    def what(self) -> str:
        """Return the beginning of messages."""
        return f"data {self.spec!r}"


def _read_npz(source: Source) -> Read:
    """Read arrays named ``SPLIT.INPUT`` and ``SPLIT.target`` for each of the three splits.

    Arrays named ``INPUT`` and ``target`` are one pool, from which the splits are drawn.
    """
    spec, path, input_spec = source.what, source.path, source.input_spec
    if not path.is_file():
        raise InputError(f"{spec}: there is no file {str(path)!r}")
    try:
        arrays = _load_arrays(path)
    except Exception as error:
        # NumPy, zipfile and zlib raise different errors for a damaged file.
        if "pickle" in str(error) and not zipfile.is_zipfile(path):  # NumPy's guess of a text
            error = InputError("it is no .npz file; write one by numpy.savez(FILE, INPUT=array)")
        raise InputError(f"{spec}: {str(path)!r} cannot be read: {error}") from error
    parts: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in SPLITS}
    strange = []
    for name, array in arrays.items():
        split, _, rest = name.partition(".")
        if split in parts and rest:
            parts[split][rest] = array
        else:
            strange.append(name)
    for part in parts.values():
        _name_the_only_input(part, input_spec)
    if not any(parts.values()):
        pool = pool_of(arrays, input_spec)
        if pool is not None:
            parts, strange = _drawn(spec, pool), []
    if strange and not all(parts[split] for split in ("search", "report")):
        raise InputError(
            f"{spec}: its arrays {first_few(strange)} belong to no split; name them "
            f"SPLIT.INPUT and SPLIT.target, where SPLIT is one of {', '.join(SPLITS)}, or INPUT "
            f"and target, where INPUT is {' or '.join(t.name for t in input_spec.inputs)}, to "
            "have them split"
        )
    doubts = _drop_labels(source, parts) if source.labels == "unneeded" else ()
    return _samples(source, parts), doubts


def _name_the_only_input(part: dict[str, NDArray[Any]], spec: InputSpec) -> None:
    """Give the only array of a split the name of the only input, in place, if it may be that."""
    arrays = [name for name in part if name != "target"]
    if len(spec.inputs) != 1 or len(arrays) != 1:
        return
    (tensor,), kind = spec.inputs, part[arrays[0]].dtype.name
    if kind == tensor.dtype or (kind == "uint8" and spec.preprocessing is not None):
        part[tensor.name] = part.pop(arrays[0])


def _drop_labels(source: Source, parts: Mapping[str, dict[str, NDArray[Any]]]) -> tuple[str, ...]:
    """Remove targets that are no classes of the model; return a warning if there are any."""
    try:
        for part in parts.values():
            if "target" in part:
                check_classes(source.what, part["target"], len(source.input_spec.classes))
    except InputError as error:
        for part in parts.values():
            part.pop("target", None)
        return (f"labels are left out: {error}",)
    return ()


def pool_of(arrays: Mapping[str, NDArray[Any]], spec: InputSpec) -> dict[str, NDArray[Any]] | None:
    """Return arrays by input, and ``target`` if there is one; None if the names do not tell.

    The only array is that of the only input, also under another name.
    """
    names = [tensor.name for tensor in spec.inputs]
    others = [name for name in arrays if name != "target"]
    if len(names) == len(others) == 1:
        found = {names[0]: arrays[others[0]]}
    elif set(names) == set(others):
        found = {name: arrays[name] for name in names}
    else:
        return None
    return found | ({"target": arrays["target"]} if "target" in arrays else {})


def _drawn(what: str, pool: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Draw the splits from arrays of n samples, in proportion of the classes where they are known.

    The same arrays give the same splits.
    """
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in pool.items()}
    n = min(lengths.values())
    if len(set(lengths.values())) > 1:
        raise InputError(f"{what}: arrays of different lengths: {lengths}")
    if n < len(SPLITS):
        raise InputError(f"{what}: {n} samples; at least {len(SPLITS)} are needed")
    sizes = SplitSizes().in_thirds(n)
    target = pool.get("target")
    is_listed = target is not None and target.ndim == 1 and target.dtype.kind in "biu"
    labels = target if target is not None and is_listed else np.zeros(n)
    drawn = stratified(labels, [sizes.search, sizes.report, sizes.calibration])
    rows = dict(zip(("search", "report", "calibration"), drawn, strict=True))
    return {split: {name: a[rows[split]] for name, a in pool.items()} for split in SPLITS}


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if zipfile.is_zipfile(path):
        size = unpacked_size(path)
        if size > available_memory_bytes():
            raise MemoryError(f"its arrays unpack to {size:,} bytes, and memory has not so many")
    with path.open("rb") as file:
        return plain_arrays(file)


def _read_cifar10(source: Source) -> Read:
    splits, classes = read_cifar10(source.path, SplitSizes()), source.input_spec.classes
    indices = indices_by_name(
        source.what, CLASSES, classes, "Give data of the supernet's own classes."
    )
    warnings: tuple[str, ...] = ()
    if indices is not None:
        order = np.array([indices[name] for name in CLASSES])
        splits = {split: (images, order[labels]) for split, (images, labels) in splits.items()}
    elif classes and not (are_numbers(classes) and len(classes) == len(CLASSES)):
        warnings = (
            f"{source.what}: none of CIFAR-10's classes is one of the supernet's "
            f"{len(classes)} ({first_few(classes, 3)}): they are taken as classes 0 to 9, "
            "and accuracies mean nothing unless that is so",
        )
    name = source.input_spec.inputs[0].name
    parts = {split: {name: images, "target": labels} for split, (images, labels) in splits.items()}
    return _samples(source, parts), warnings


def _samples(
    source: Source, parts: Mapping[str, Mapping[str, NDArray[Any]]]
) -> dict[str, SplitSamples]:
    given = [split for split in SPLITS if parts[split] or split != "calibration"]
    with_labels = source.labels == "needed" or any("target" in parts[split] for split in given)
    return {
        split: samples_of(
            f"{source.what}, split {split}",
            parts[split],
            source.input_spec,
            labelled=with_labels and (split != "calibration" or source.labels == "needed"),
        )
        for split in given
    }


def _read_imagefolder(source: Source) -> Read:
    try:
        crop_size(source.input_spec)
    except DataError as error:
        raise InputError(f"{source.what}: {error}") from error
    path, spec = source.path, source.input_spec
    splits, warnings = read_imagefolder(path, spec.classes, labels=source.labels)
    cache = DecodedImageCache()
    return {
        split: ImageSamples(path, *files, spec, cache) for split, files in splits.items()
    }, warnings


def _read_text(source: Source) -> Read:
    folders = [*filter(None, [source.folder]), source.path.parent]
    parts, warnings = read_text_samples(
        source.what, source.path, source.input_spec, folders, source.labels
    )
    return _samples(source, parts), warnings


_READERS: dict[str, Callable[[Source], Read]] = {
    "cifar10": _read_cifar10,
    "imagefolder": _read_imagefolder,
    "npz": _read_npz,
    "text": _read_text,
}
