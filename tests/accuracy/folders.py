"""Small image folders for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from hwsearch.supernets.interface import ImagePreprocessing, InputSpec, TensorSpec

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


def image_spec(channels, height, width):
    """What a network of some shape of input expects; nothing is normalised."""
    short = min(height, width)
    return InputSpec(
        inputs=(TensorSpec(name="image", shape=(channels, height, width)),),
        preprocessing=ImagePreprocessing(
            resize=short + short // 4, crop=short, mean=(0.0,) * channels, std=(1.0,) * channels
        ),
    )


def saved(make, suffix="png"):
    """A function that saves four images into a folder."""

    def save_four(folder):
        folder.mkdir(parents=True)
        for number in range(4):
            image = make(np.random.default_rng(number))
            turn = {"exif": image.getexif()} if 0x0112 in image.getexif() else {}
            image.save(folder / f"{number}.{suffix}", **turn)

    return save_four


def noise(mode, top=256, dtype=np.uint8):
    def make(rng, size=(23, 17)):
        channels = {"RGB": (3,), "RGBA": (4,), "LA": (2,), "CMYK": (4,)}.get(mode, ())
        pixels = rng.integers(0, top, (*size[::-1], *channels)).astype(dtype)
        return Image.fromarray(pixels, mode) if mode in ("LA", "CMYK") else Image.fromarray(pixels)

    return make


def palette(rng):
    image = noise("RGB")(rng).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def turned(rng):
    """Upright only once its EXIF data are heeded."""
    image = noise("RGB")(rng)
    image.getexif()[0x0112] = 6
    return image


# Kinds of images that become 8 bits per channel, and those that do not.
KINDS = {
    "RGB": saved(noise("RGB")),
    "L": saved(noise("L")),
    "LA": saved(noise("LA")),
    "RGBA": saved(noise("RGBA")),
    "P with transparency": saved(palette),
    "1": saved(lambda rng: noise("L")(rng).convert("1")),
    "CMYK": saved(noise("CMYK"), "tif"),
    "16 bits": saved(noise("I;16", 65536, np.uint16)),
    "16 bits, tif": saved(noise("I;16", 65536, np.uint16), "tif"),
    "16 bits, pgm": saved(noise("I;16", 65536, np.uint16), "pgm"),
    "turned": saved(turned),
}
REFUSED = {
    "F": saved(noise("F", 2, np.float32), "tif"),
    "I": saved(noise("I", 2**31, np.int32), "tif"),
}
