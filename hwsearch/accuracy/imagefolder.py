"""Image files in folders: which there are, of which class, and which split each belongs to."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.classes import CLASSES, class_of_label, classes_of_folders, listed_classes
from hwsearch.accuracy.splits import SPLITS, SplitSizes, stratified
from hwsearch.errors import InputError

# Batch statistics from 2,000 images, as in Cai et al., "Once-for-All", ICLR 2020.
SIZES = SplitSizes(calibration=2000, search=2500, report=2500)
LABEL_FILES = ("labels.txt", "labels.csv")
LAYOUTS = (
    "PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE with PATH/val/CLASS/IMAGE, or PATH/labels.txt "
    "with lines 'FILE LABEL'"
)
# Pool of images -> the splits drawn from it. Search first: the same images are searched by,
# whatever the other sizes are.
DRAWN = {
    "": ("search", "report", "calibration"),
    "train": ("calibration",),
    "val": ("search", "report"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Images and their classes.

    Attributes:
        paths: (n,) files.
        labels: (n,) class indices.
    """

    paths: list[str]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "ImageFiles":
        """Return some of them."""
        return ImageFiles(paths=[self.paths[row] for row in rows], labels=self.labels[rows])


def read_imagefolder(
    path: Path, classes: Sequence[str], sizes: SplitSizes = SIZES
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Draw three disjoint splits of the images in a folder; no image is opened.

    The folder holds one folder per class, or ``train`` and ``val`` that do (then calibration is
    drawn from ``train``, the rest from ``val``), or a label file.

    Args:
        path: The folder.
        classes: Names of the classes that the supernet scores, in order; empty if unknown.
        sizes: Of the splits, shrunk in proportion where there are fewer images.

    Returns:
        Split -> its files; and warnings.

    Raises:
        InputError: The folder is absent, holds too few images, or does not say their classes.
    """
    if not path.is_dir():
        raise InputError(f"image folder {str(path)!r} does not exist or is no folder")
    try:
        pools, warnings = _list_images(path, classes)
    except OSError as error:
        raise InputError(f"image folder {str(path)!r} cannot be read: {error}") from error
    return _draw(path, pools, sizes), warnings


def _draw(path: Path, pools: dict[str, ImageFiles], sizes: SplitSizes) -> dict[str, ImageFiles]:
    chosen: dict[str, ImageFiles] = {}
    for name, pool in pools.items():
        splits = DRAWN[name]
        if len(pool.paths) < len(splits):
            raise InputError(
                f"image folder {str(path / name)!r} holds {len(pool.paths)} images; expected "
                f"{LAYOUTS}, with at least {len(splits)} images"
            )
        wanted = SplitSizes(**{s: getattr(sizes, s) if s in splits else 0 for s in SPLITS})
        wanted = wanted.within(len(pool.paths))
        drawn = stratified(pool.labels, [getattr(wanted, split) for split in splits])
        chosen |= {s: pool.take(rows) for s, rows in zip(splits, drawn, strict=True)}
    return {split: chosen[split] for split in SPLITS}


def _list_images(
    path: Path, classes: Sequence[str]
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    label_files = [path / name for name in LABEL_FILES if (path / name).is_file()]
    if len(label_files) > 1:
        raise InputError(f"image folder {str(path)!r} has {' and '.join(LABEL_FILES)}; keep one")
    if label_files:
        return {"": _labelled(label_files[0], classes)}, ()
    parts = ("train", "val") if all((path / part).is_dir() for part in ("train", "val")) else ("",)
    found = {part: _by_folder(path / part) for part in parts}
    names = sorted({name for folders in found.values() for name in folders})
    indices, warnings = classes_of_folders(path, names, classes) if names else ({}, ())
    pools = {}
    for part, folders in found.items():
        labels = [indices[name] for name, paths in folders.items() for _ in paths]
        paths = [each for paths in folders.values() for each in paths]
        pools[part] = ImageFiles(paths=paths, labels=np.array(labels, np.int64))
    return pools, warnings


def _by_folder(root: Path) -> dict[str, list[str]]:
    """Return class folder -> images in it, however deep."""
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    return {name: sorted(_images_in(str(root / name))) for name in names}


def _images_in(folder: str) -> Iterator[str]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue  # such as what macOS leaves beside every image
            if entry.name.lower().endswith(IMG_EXTENSIONS):
                yield entry.path
            elif entry.is_dir():
                yield from _images_in(entry.path)


def _labelled(file: Path, classes: Sequence[str]) -> ImageFiles:
    """Read a label file; images that it does not name are left out."""
    root = file.parent
    if (root / CLASSES).is_file():
        known = listed_classes(root, classes)
    else:
        known = {name: index for index, name in enumerate(classes)}
    paths: dict[str, int] = {}
    for number, name, label in _rows(file):
        where = f"{str(file)!r}, line {number}"
        path = os.path.normpath(root / name)
        if path in paths:
            raise InputError(f"{where}: {name!r} is listed twice; keep one line")
        paths[path] = class_of_label(where, label, known, len(classes))
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        named = ", ".join(os.path.relpath(each, root) for each in absent[:5])
        raise InputError(
            f"{str(file)!r} names {len(absent)} of {len(paths)} files that do not exist: {named}"
            f"{', ...' if len(absent) > 5 else ''}; names are relative to {str(root)!r}"
        )
    return ImageFiles(paths=list(paths), labels=np.array(list(paths.values()), np.int64))


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, file, label)."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"label file {str(file)!r} is no text in UTF-8: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = next(csv.reader([line])) if file.suffix == ".csv" else _split(line.strip())
        if len(parts) != 2:
            form = "FILE,LABEL" if file.suffix == ".csv" else "FILE LABEL"
            raise InputError(f"{str(file)!r}, line {number}: {line!r} is not '{form}'")
        name, label = (part.strip() for part in parts)
        header = number == 1 and file.suffix == ".csv"
        if header and not name.lower().endswith(IMG_EXTENSIONS):
            continue
        yield number, name, label


def _split(line: str) -> list[str]:
    """Split at the last gap or comma: a file's name may have spaces in it."""
    found = re.fullmatch(r"(.+?)(?:\s*,\s*|\s+)([^\s,]+)", line)
    return list(found.groups()) if found else [line]
