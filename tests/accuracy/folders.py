"""Small image folders for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from hwsearch.supernets.base import ImagePreprocessing, InputSpec, TensorSpec

COLOURS = {"ant": (255, 0, 0), "bee": (0, 255, 0), "cat": (0, 0, 255)}


def save(path, colour, size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def save_noise(path, seed, size=(20, 15)):
    """An image in which every pixel counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def class_folders(root, n=10, names=tuple(COLOURS)):
    """Noise in one folder per class; sizes, shapes and formats differ."""
    for number, name in enumerate(names):
        for i in range(n):
            suffix = ("png", "JPEG", "bmp")[i % 3]
            size = (20, 15) if i % 2 else (13, 31)
            save_noise(Path(root) / name / f"{name}_{i}.{suffix}", 100 * number + i, size)
    return root


def spec_for(side, classes=("ant", "bee", "cat"), name="image"):
    """What an architecture of some resolution expects; nothing is normalised."""
    return InputSpec(
        inputs=(TensorSpec(name=name, shape=(3, side, side)),),
        preprocessing=ImagePreprocessing(
            resize=side + side // 4, crop=side, mean=(0.0,) * 3, std=(1.0,) * 3
        ),
        classes=classes,
    )
