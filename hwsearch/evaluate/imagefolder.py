"""Images in one folder per class, as torchvision's ImageFolder reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError
from hwsearch.evaluate.splits import SPLITS, SplitSizes, stratified
from hwsearch.supernets.base import ImagePreprocessing


def read_imagefolder(
    path: Path, preprocessing: ImagePreprocessing, sizes: SplitSizes, classes: Sequence[str]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Draw three disjoint splits of one folder, decoded, resized and cropped.

    Class folders in sorted order are the classes 0, 1 and so on, unless their names are exactly
    the supernet's class names, which then decide.

    Returns:
        Split -> ((n, crop, crop, 3) uint8 images, (n,) labels).

    Raises:
        InputError: The folder is absent or empty, has another number of classes than the
            supernet, or some of the drawn images cannot be decoded (how many, and which).
    """
    paths, labels = _list_images(path, classes)
    wanted = sizes.within(len(paths))
    # Search first: the same images are searched by, whatever the other sizes are.
    drawn = stratified(labels, [wanted.search, wanted.report, wanted.calibration])
    chosen = dict(zip(("search", "report", "calibration"), drawn, strict=True))
    unreadable: list[str] = []
    splits = {}
    for split in SPLITS:
        images = [_decode(paths[i], preprocessing, unreadable) for i in chosen[split]]
        splits[split] = (np.array(images, np.uint8), labels[chosen[split]])
    if unreadable:
        named = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
        raise InputError(
            f"{len(unreadable)} of {sum(map(len, drawn))} images in {str(path)!r} cannot be "
            f"decoded: {named}. Remove or repair them."
        )
    return splits


def _list_images(path: Path, classes: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    if not path.is_dir():
        raise InputError(f"image folder {str(path)!r} does not exist or is no folder")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    if {folder.name for folder in folders} == set(classes):
        folders.sort(key=lambda folder: classes.index(folder.name))
    found = [
        (image, label)
        for label, folder in enumerate(folders)
        for image in sorted(folder.rglob("*"))
        if image.suffix.lower() in IMG_EXTENSIONS
    ]
    if len(found) < len(SPLITS):
        raise InputError(
            f"image folder {str(path)!r} holds {len(found)} images in {len(folders)} class "
            "folders; expected PATH/CLASS/IMAGE with at least 3 images"
        )
    if classes and len(folders) != len(classes):
        raise InputError(
            f"image folder {str(path)!r} has {len(folders)} class folders, but the supernet knows "
            f"{len(classes)} classes"
        )
    return [image for image, _ in found], np.array([label for _, label in found], np.int64)


def _decode(
    path: Path, preprocessing: ImagePreprocessing, unreadable: list[str]
) -> NDArray[np.uint8]:
    from PIL import Image
    from torchvision.transforms.functional import center_crop, resize

    try:
        with Image.open(path) as image:
            resized = resize(image.convert("RGB"), [preprocessing.resize])
            return np.asarray(center_crop(resized, [preprocessing.crop]), np.uint8)
    except Exception:  # noqa: BLE001 - Pillow has no one error for a damaged file
        unreadable.append(path.name)
        return np.zeros((preprocessing.crop, preprocessing.crop, 3), np.uint8)
