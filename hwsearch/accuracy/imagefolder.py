"""Image folders: their files, the classes of these and the splits, or what a label file lists."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.classes import (
    CLASSES,
    class_of_label,
    classes_of_folders,
    first_few,
    folded,
    known_classes,
    listed_classes,
    read_text,
)
from hwsearch.accuracy.folder_layout import (
    LAYOUTS,
    SUFFIXES,
    Layout,
    Tree,
    find_layout,
    label_file,
    scan,
)
from hwsearch.accuracy.task import SPLITS, UNLABELLED, Labels, SplitSizes, stratified
from hwsearch.errors import InputError

# Batch statistics from 2,000 images, as in Cai et al., "Once-for-All", ICLR 2020.
SIZES = SplitSizes(calibration=2000, search=2500, report=2500)
# Pool of images -> the splits drawn from it. Search comes first, so that its images do not depend
# on the other sizes.
DRAWN = {
    "": ("search", "report", "calibration"),
    "train": ("calibration",),
    "val": ("search", "report"),
}
IGNORED = "Objectives that need no labels, such as kl, search without them."


class ImageFiles(NamedTuple):
    """Image files of one split, with (n,) paths and (n,) class indices as labels."""

    paths: list[str]
    labels: NDArray[np.int64]


def read_imagefolder(
    path: Path,
    classes: Sequence[str],
    sizes: SplitSizes = SIZES,
    labels: Labels = "needed",
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Draw three disjoint splits of the images in a folder; no image is opened.

    The folder holds one folder per class, or ``train`` with ``val`` or ``test`` that do (then
    calibration is drawn from ``train``, the rest from the other), or a label file; see
    `hwsearch.accuracy.folder_layout`. ``classes`` of the supernet are empty if unknown; ``sizes``
    shrink in proportion where there are fewer images. Where ``labels`` are not needed, images
    without classes are taken too, in folders or not; their labels are -1.

    Returns:
        Split -> its files; and warnings.

    Raises:
        InputError: The folder is absent, has too few images, or their classes are unknown.
    """
    if not path.is_dir():
        raise InputError(f"image folder {str(path)!r} does not exist or is no folder")
    if labels != "needed":
        found = _without_classes(path, classes)
        if found is not None:
            return _drawn_unlabelled(path, found[0]), found[1]
    try:
        layout = find_layout(path, known_classes(classes))
        pools, warnings = _labels(layout, classes)
    except OSError as error:
        raise InputError(f"image folder {str(path)!r} cannot be read: {error}") from error
    except InputError as error:
        if labels == "needed":
            raise
        if labels == "optional":
            raise InputError(f"{error} {IGNORED}") from error
        return _drawn_unlabelled(path, list(scan(str(path)).walk())), (
            f"labels are left out: {error}",
        )
    drawn: dict[str, ImageFiles] = {}
    for role, of_images in pools.items():
        splits, paths = DRAWN[role], list(of_images)
        if len(paths) < len(splits):
            folder = layout.pools[role].path if role in layout.pools else layout.root
            raise InputError(
                f"image folder {str(folder)!r} holds {len(paths)} images; expected {LAYOUTS}, "
                f"with at least {len(splits)} images ({', '.join(SUFFIXES)})"
            )
        wanted = SplitSizes(*(n if s in splits else 0 for s, n in sizes._asdict().items()))
        wanted = wanted.within(len(paths))
        indices = np.array(list(of_images.values()), np.int64)
        chosen = stratified(indices, [getattr(wanted, split) for split in splits])
        for split, rows in zip(splits, chosen, strict=True):
            drawn[split] = ImageFiles([paths[row] for row in rows], indices[rows])
    return {split: drawn[split] for split in SPLITS}, (*layout.warnings, *warnings)


def _without_classes(
    path: Path, classes: Sequence[str]
) -> tuple[list[str], tuple[str, ...]] | None:
    """Return all images of a folder that says nothing of classes, and warnings; else None.

    Folders are classes where some have the name of one, where ``classes.txt`` or a label file says
    so, and where there is one for each class of the model.
    """
    try:
        tree = scan(str(path))
        folders = list(_below(tree))
        places = [Path(each.path) for each in folders]
        if any(label_file(place) or (place / CLASSES).is_file() for place in places):
            return None
    except OSError as error:
        raise InputError(f"image folder {str(path)!r} cannot be read: {error}") from error
    images, names = list(tree.walk()), {os.path.basename(each.path) for each in folders[1:]}
    if not (classes and names):
        return images, ()
    known = known_classes(classes)
    if any(name in known for name in names) or len(classes) in _widths(folders):
        return None
    return images, (
        f"image folder {str(path)!r} is taken as images without classes, since its folders "
        f"({first_few(sorted(names), 3)}) are neither as many as the model's {len(classes)} "
        "classes nor named like them; to say otherwise, list the folders' names in the order of "
        f"the outputs in {str(path / CLASSES)!r}",
    )


def _below(tree: Tree) -> Iterator[Tree]:
    """Yield a folder and those with images below it."""
    yield tree
    for child in tree.holding().values():
        yield from _below(child)


def _widths(folders: Sequence[Tree]) -> set[int]:
    """Return how many different names the folders of each level have."""
    levels: dict[int, set[str]] = {}
    for each in folders:
        name = os.path.basename(each.path)
        levels.setdefault(each.path.count(os.sep), set()).add(folded(name))
    return {len(names) for names in levels.values()}


def _drawn_unlabelled(path: Path, images: list[str]) -> dict[str, ImageFiles]:
    if len(images) < len(SPLITS):
        raise InputError(
            f"image folder {str(path)!r} holds {len(images)} images; at least {len(SPLITS)} are "
            f"needed ({', '.join(SUFFIXES)}), and some hundred make results useful"
        )
    n = SplitSizes().in_thirds(len(images))
    parts = stratified(np.zeros(len(images)), [n.search, n.report, n.calibration])
    search, report, calibration = (
        ImageFiles([images[row] for row in rows], np.full(len(rows), UNLABELLED)) for rows in parts
    )
    return {"calibration": calibration, "search": search, "report": report}


def _labels(
    layout: Layout, classes: Sequence[str]
) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Return pool -> image -> class index; and warnings."""
    if layout.labels is not None:
        return {"": read_labels(layout.labels, classes)}, ()
    parts = [list(pool.classes) for pool in layout.pools.values()]
    indices, warnings = classes_of_folders(layout.root, parts, classes)
    return {
        role: {path: indices[name] for name, paths in pool.classes.items() for path in paths}
        for role, pool in layout.pools.items()
    }, warnings


def read_labels(file: Path, classes: Sequence[str]) -> dict[str, int]:
    """Return the class index of each image listed in a label file.

    Raises:
        InputError: A line is malformed, or names no file, no class, or a file twice.
    """
    root = file.parent
    listed = (root / CLASSES).is_file()
    known = listed_classes(root / CLASSES, classes) if listed else known_classes(classes)
    is_csv = file.suffix == ".csv"
    paths: dict[str, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        where = f"{str(file)!r}, line {number}"
        if not line.strip():
            continue
        parts = next(csv.reader([line])) if is_csv else _split(line.strip())
        if len(parts) != 2:
            raise InputError(f"{where}: {line!r} is not 'FILE{',' if is_csv else ' '}LABEL'")
        name, label = (part.strip() for part in parts)
        if is_csv and number == 1 and not name.lower().endswith(SUFFIXES):
            continue  # a header
        path = os.path.normpath(root / name)
        if path in paths:
            raise InputError(f"{where}: {name!r} is listed twice; keep one line")
        paths[path] = class_of_label(where, label, known, len(classes))
    absent = [os.path.relpath(path, root) for path in paths if not os.path.isfile(path)]
    if absent:
        raise InputError(
            f"{str(file)!r} names {len(absent)} of {len(paths)} files that do not exist: "
            f"{first_few(absent)}; names are relative to {str(root)!r}"
        )
    return paths


def _split(line: str) -> list[str]:
    """Split at the last blank or comma: a file's name may have blanks in it."""
    found = re.fullmatch(r"(.+?)(?:\s*,\s*|\s+)([^\s,]+)", line)
    return list(found.groups()) if found else [line]
