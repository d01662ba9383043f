"""Image folders: their files, classes and splits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.classes import classes_of_folders, known_classes
from hwsearch.accuracy.folder_layout import LAYOUTS, find_layout
from hwsearch.accuracy.label_file import read_labels
from hwsearch.accuracy.splits import SPLITS, SplitSizes, stratified
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Image files of a folder, with (n,) paths and (n,) class indices as labels."""

    folder: Path
    paths: list[str]
    labels: NDArray[np.int64]


def read_imagefolder(
    path: Path, classes: Sequence[str], sizes: SplitSizes = SIZES
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """Draw three disjoint splits of the images in a folder; no image is opened.

    The folder holds one folder per class, or ``train`` with ``val`` or ``test`` that do (then
    calibration is drawn from ``train``, the rest from the other), or a label file; see
    `hwsearch.accuracy.folder_layout`. ``classes`` of the supernet are empty if unknown; ``sizes``
    shrink in proportion where there are fewer images.

    Returns:
        Split -> its files; and warnings.

    Raises:
        InputError: The folder is absent, has too few images, or their classes are unknown.
    """
    if not path.is_dir():
        raise InputError(f"image folder {str(path)!r} does not exist or is no folder")
    try:
        pools, warnings = _list_images(path, classes)
    except OSError as error:
        raise InputError(f"image folder {str(path)!r} cannot be read: {error}") from error
    return _draw(pools, sizes), warnings


def _draw(pools: dict[str, ImageFiles], sizes: SplitSizes) -> dict[str, ImageFiles]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    chosen: dict[str, ImageFiles] = {}
    for role, pool in pools.items():
        splits = DRAWN[role]
        if len(pool.paths) < len(splits):
            raise InputError(
                f"image folder {str(pool.folder)!r} holds {len(pool.paths)} images; expected "
                f"{LAYOUTS}, with at least {len(splits)} images ({', '.join(IMG_EXTENSIONS)})"
            )
        wanted = SplitSizes(**{s: getattr(sizes, s) if s in splits else 0 for s in SPLITS})
        wanted = wanted.within(len(pool.paths))
        drawn = stratified(pool.labels, [getattr(wanted, split) for split in splits])
        for split, rows in zip(splits, drawn, strict=True):
            paths = [pool.paths[row] for row in rows]
            chosen[split] = replace(pool, paths=paths, labels=pool.labels[rows])
    return {split: chosen[split] for split in SPLITS}


def _list_images(
    path: Path, classes: Sequence[str]
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    layout = find_layout(path, known_classes(classes))
    if layout.labels is not None:
        labels = read_labels(layout.labels, classes)
        return {"": _files(layout.root, labels)}, layout.warnings
    parts = [list(pool.classes) for pool in layout.pools]
    indices, warnings = classes_of_folders(layout.root, parts, classes)
    pools = {
        pool.role: _files(
            pool.path,
            {path: indices[name] for name, paths in pool.classes.items() for path in paths},
        )
        for pool in layout.pools
    }
    return pools, (*layout.warnings, *warnings)


def _files(folder: Path, labels: dict[str, int]) -> ImageFiles:
    indices = np.array(list(labels.values()), np.int64)
    return ImageFiles(folder=folder, paths=list(labels), labels=indices)
