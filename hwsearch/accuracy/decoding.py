"""Decoding of image files into crops for a network, and their normalisation."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.task import Preprocess
from hwsearch.errors import DataError
from hwsearch.machine import thread_limit
from hwsearch.supernets.interface import ImagePreprocessing, InputSpec

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Crops: TypeAlias = NDArray[np.uint8]
LARGEST_PIXELS = 2**27
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
LAYOUTS = {"NCHW": "channels, height, width", "NHWC": "height, width, channels"}
COLOURS = ("RGB", "BGR", "RGBA", "L")
FED = ("float32", "float16", "float64", "uint8")  # types of image inputs


@dataclass(frozen=True, slots=True)
class CropSize:
    """Size and channels of an input image: resized, then cropped at the centre.

    The shorter side is resized to ``resize`` pixels, or more where the image would not cover the
    crop. ``shape`` is height, width and channels: 1 (grey), 3 (RGB) or 4 (RGBA).
    """

    resize: int
    shape: tuple[int, int, int]


def crop_size(spec: InputSpec) -> CropSize:
    """Return the crop for image files that a network's input requires.

    Raises:
        DataError: It has no image input, several inputs, or not 1, 3 or 4 channels.
    """
    preprocessing, shapes = image_preprocessing(spec), [tensor.shape for tensor in spec.inputs]
    (shape, *more), dtype = shapes, spec.inputs[0].dtype
    channels = _channels(shape, preprocessing.layout)
    if more or len(shape) != 3 or channels not in MODES or dtype not in FED:
        raise DataError(
            f"the inputs of this supernet are {dtype} of shape {', '.join(map(str, shapes))}, not "
            f"one {FED[0]} image ({LAYOUTS[preprocessing.layout]}) of 1, 3 or 4 channels; give "
            "arrays by npz:FILE"
        )
    height, width = shape[:2] if preprocessing.layout == "NHWC" else shape[1:]
    if preprocessing.crop not in (height, width):
        raise DataError(
            f"the preprocessing of this supernet crops to {preprocessing.crop} pixels, but its "
            f"input is {height} x {width}; make them agree"
        )
    return CropSize(preprocessing.resize, (height, width, channels))


def _channels(shape: Sequence[int], layout: str) -> int:
    return shape[-1] if layout == "NHWC" else shape[0]


def image_preprocessing(spec: InputSpec) -> ImagePreprocessing:
    """Return the preprocessing of a network's images; raise DataError if it is unsupported."""
    preprocessing, shape = spec.preprocessing, spec.inputs[0].shape
    if preprocessing is None:
        raise DataError("the inputs of this model are no images; give arrays by npz:FILE")
    if preprocessing.layout not in LAYOUTS or preprocessing.colour not in COLOURS:
        raise DataError(
            f"the preprocessing of this supernet asks for {preprocessing.colour} images as "
            f"{preprocessing.layout}; images are prepared as {' or '.join(LAYOUTS)}, in RGB, BGR, "
            "grey or RGBA, only"
        )
    mean, std, channels = (
        preprocessing.mean,
        preprocessing.std,
        _channels(shape, preprocessing.layout),
    )
    given = f"the preprocessing of this supernet has mean {mean} and std {std}"
    if {len(mean), len(std)} != {channels}:
        raise DataError(f"{given}, but its input has {channels} channels; give a number for each")
    if not np.isfinite([*mean, *std]).all() or 0 in std:
        raise DataError(f"{given}; give finite numbers, and no std of 0")
    return preprocessing


def image_preprocess(preprocessing: ImagePreprocessing, dtype: str = "float32") -> Preprocess:
    """Return the function from (n, h, w, c) uint8 crops to normalised images in their layout.

    Crops are RGB; those of ``dtype`` uint8 are rounded.
    """
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    # A table of the 256 values takes a fifth of the time of computing each pixel's.
    scaled = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - mean) / std
    if dtype == "uint8":
        scaled = scaled.round().clip(0, 255)
    scaled = scaled.astype(dtype)

    def normalise(images: NDArray[Any]) -> NDArray[Any]:
        n, height, width, channels = images.shape
        last = preprocessing.layout == "NHWC"
        shape = (n, height, width, channels) if last else (n, channels, height, width)
        ready = np.empty(shape, scaled.dtype)
        for channel in range(channels):
            source = channels - 1 - channel if preprocessing.colour == "BGR" else channel
            values = scaled[:, channel][images[..., source]]
            if last:
                ready[..., channel] = values
            else:
                ready[:, channel] = values
        return ready

    return normalise


def eight_bit(image: "Image", mode: str) -> "Image":
    """Return an image upright and in a mode of 8 bits, such as ``RGB``; transparency is dropped.

    Pixels of more than 16 bits or of floats, whose range is unknown, raise ValueError.
    """
    from PIL import Image, ImageOps

    deep, form = image.mode, image.format
    bits = getattr(image, "tag_v2", {}).get(258, (16,))  # TIFF's BitsPerSample
    ImageOps.exif_transpose(image, in_place=True)
    if deep.startswith("I;16") or (deep == "I" and form in ("PNG", "PPM")):
        if set(bits) != {16}:
            raise ValueError(f"its grey values have {bits[0]} bits; convert it to 8 or 16")
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif deep.startswith(("I", "F")):
        raise ValueError(
            f"its values are {'floating-point' if deep[0] == 'F' else '32-bit'} numbers (mode "
            f"{deep}), whose range is not known; convert it to 8 or 16 bits"
        )
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def decoder(size: CropSize) -> Callable[[bytes], Crops]:
    """Return a function from a file's content to a (height, width, channels) uint8 crop.

    It decodes as torchvision's loader, ``Resize`` and ``CenterCrop`` do, but turns images upright,
    scales 16-bit ones, and enlarges those that do not cover the crop. It raises Pillow's error for
    a damaged image, and ValueError where it cannot be converted.
    """
    # Imported once, not in every thread.
    from PIL import Image

    height, width, channels = size.shape

    def decode(content: bytes) -> Crops:
        with Image.open(BytesIO(content)) as opened:
            image = eight_bit(opened, MODES[channels])
        short = min(image.size)
        w, h = (int(size.resize * side / short) for side in image.size)
        if w < width or h < height:
            cover = max(width / image.width, height / image.height)
            w, h = (round(side * cover) for side in image.size)
        if w * h > LARGEST_PIXELS:
            raise ValueError(
                f"it is {image.width} x {image.height} pixels, too long for its width"
            )
        left, top = round((w - width) / 2), round((h - height) / 2)
        resized = image.resize((w, h), Image.Resampling.BILINEAR)
        crop = resized.crop((left, top, left + width, top + height))
        return np.asarray(crop, np.uint8).reshape(size.shape)

    return decode


def in_parallel(
    function: Callable[[str], T], paths: Sequence[str], size: int
) -> Iterator[list[T]]:
    """Yield the results for ``size`` paths at a time, while threads compute the next ones.

    Pillow and hashlib release the interpreter lock.
    """
    pool = ThreadPoolExecutor(thread_limit())
    waiting = pool.map(function, paths[:size])
    try:
        for end in range(size, len(paths) + size, size):
            ahead = pool.map(function, paths[end : end + size])
            yield list(waiting)
            waiting = ahead
    finally:
        pool.shutdown(cancel_futures=True)
