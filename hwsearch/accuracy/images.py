"""Samples that are image files, decoded for the input of each architecture."""

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.answered_samples import stored
from hwsearch.accuracy.classes import first_few
from hwsearch.accuracy.decoding import (
    Crops,
    CropSize,
    crop_size,
    decoder,
    image_preprocess,
    image_preprocessing,
    in_parallel,
)
from hwsearch.accuracy.task import Batch, Task
from hwsearch.errors import DataError
from hwsearch.machine import available_memory_bytes
from hwsearch.supernets.interface import InputSpec

if TYPE_CHECKING:
    from hwsearch.run.progress import Progress

AT_A_TIME = 64
SHARE_OF_MEMORY = 0.25
TOLD_EVERY_S = 5.0
DARK = 64  # of 255


class DecodedImageCache:
    """Decoded crops of all splits; the default budget is a quarter of the available memory."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
        # By crop size and split, least recently used first.
        self._kept: OrderedDict[tuple[CropSize, object], Crops] = OrderedDict()

    def get(self, size: CropSize, owner: object) -> Crops | None:
        """Return the (n, height, width, channels) crops of a split, or None."""
        if (size, owner) in self._kept:
            self._kept.move_to_end((size, owner))
        return self._kept.get((size, owner))

    def make_room(self, size: CropSize, images: int) -> Crops | None:
        """Return an empty array for crops, or None where they do not fit.

        Other sizes are evicted, the least recently used first; other splits of the same size are
        not.
        """
        others = [key for key in self._kept if key[0] != size]
        used = sum(crops.nbytes for crops in self._kept.values())
        wanted = images * math.prod(size.shape)
        if used + wanted - sum(self._kept[key].nbytes for key in others) > self.budget:
            return None
        for key in others:
            if used + wanted <= self.budget:
                break
            used -= self._kept.pop(key).nbytes
        return np.empty((images, *size.shape), np.uint8)

    def keep(self, size: CropSize, owner: object, crops: Crops) -> None:
        """Keep the crops that room was made for."""
        self._kept[size, owner] = crops


@dataclass(eq=False, repr=False)
class ImageSamples:
    """Images of one split in files; see `hwsearch.accuracy.task.SplitSamples`.

    Images are decoded at the first request for a crop size, and kept where memory allows in a
    cache that the splits of a task share. Messages name files relative to ``root``; ``spec`` is
    the default input spec of batches.
    """

    root: Path
    paths: Sequence[str]
    targets: NDArray[np.int64]
    spec: InputSpec
    cache: DecodedImageCache
    _digest: str | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the files' bytes and the targets, 16 digits."""
        if self._digest is None:
            unreadable = [e for _, errors in self._read(None, AT_A_TIME) for e in errors]
            _refuse(self.root, unreadable, len(self))
            assert self._digest is not None
        return self._digest

    def batches(self, size: int, spec: InputSpec | None = None) -> Iterator[Batch]:
        """Yield batches; see `hwsearch.accuracy.task.SplitSamples.batches`."""
        spec = spec if spec is not None else self.spec
        crop = crop_size(spec)
        normalise = image_preprocess(image_preprocessing(spec), spec.inputs[0].dtype)
        start = 0
        for crops in self._crops(size, crop):
            targets = self.targets[start : start + len(crops)]
            yield {spec.inputs[0].name: normalise(crops)}, targets
            start += len(crops)

    def _crops(self, size: int, crop: CropSize) -> Iterator[Crops]:
        """Yield (size, height, width, channels) uint8, from the cache or from the files."""
        kept = self.cache.get(crop, self)
        if kept is not None:
            yield from (kept[start : start + size] for start in range(0, len(kept), size))
            return
        unreadable: list[str] = []
        for crops, errors in self.decoded(crop, size):
            unreadable += errors
            if not unreadable:
                yield np.stack(crops)
        _refuse(self.root, unreadable, len(self))

    def decoded(self, crop: CropSize, size: int) -> Iterator[tuple[list[Crops], list[str]]]:
        """Read, hash and decode ``size`` files at a time; yield crops and errors.

        The crops are kept where they fit, and the digest, if there were no errors.
        """
        keep, done = self.cache.make_room(crop, len(self)), 0
        for crops, errors in self._read(crop, size):
            if errors:
                keep = None
            if keep is not None:
                keep[done : done + len(crops)] = crops
            done += len(crops)
            yield crops, errors
        if keep is not None:
            self.cache.keep(crop, self, keep)

    def _read(self, crop: CropSize | None, size: int) -> Iterator[tuple[list[Crops], list[str]]]:
        digest, done, whole = hashlib.sha256(), 0, True
        for part in in_parallel(_reader(crop), self.paths, size):
            errors = [
                f"{os.path.relpath(self.paths[row], self.root)} ({error})"
                for row, (_, _, error) in enumerate(part, done)
                if error
            ]
            digest.update(b"".join(each for each, _, _ in part))
            done, whole = done + len(part), whole and not errors
            yield [pixels for _, pixels, _ in part if pixels is not None], errors
        if whole:
            digest.update(np.ascontiguousarray(self.targets, np.int64).tobytes())
            self._digest = digest.hexdigest()[:16]


def read_images(task: Task, spec: InputSpec, progress: "Progress") -> None:
    """Read, hash and decode every image file of a task once, with progress in images per second.

    Raises:
        DataError: Some cannot be decoded, and the text says how many, which and why; or all are
            black.
    """
    splits = (task.calibration, stored(task.search), stored(task.report))
    files = [samples for samples in splits if isinstance(samples, ImageSamples)]
    total = sum(map(len, files))
    if not total:
        return
    progress.phase("read", total)
    unreadable: list[str] = []
    done = brightest = 0
    begin = told = time.monotonic()
    for samples in files:
        for crops, errors in samples.decoded(crop_size(spec), AT_A_TIME):
            unreadable += errors
            brightest = max([brightest, *(int(crop.max()) for crop in crops)])
            done += len(crops) + len(errors)
            progress.advance(len(crops) + len(errors))
            if time.monotonic() - told > TOLD_EVERY_S or done == total:
                told = time.monotonic()
                progress.state(**{"images/s": done / max(told - begin, 1e-9)})
    _refuse(files[0].root, unreadable, total)
    doubt = (
        f"the brightest pixel of all images in {str(files[0].root)!r} is {brightest} of 255; "
        "where files of 16 bits hold values of 8 or 12 bits, multiply them by 257 or 16"
    )
    if brightest <= 1:
        raise DataError(doubt)
    if brightest < DARK:
        progress.note(doubt)


def _refuse(root: Path, unreadable: list[str], total: int) -> None:
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {total} images in {str(root)!r} cannot be decoded: "
            f"{first_few(unreadable)}. Repair or remove them."
        )


def _reader(crop: CropSize | None) -> Callable[[str], tuple[bytes, Crops | None, str]]:
    """Return a function from a file to its SHA-256, its crop if one is given, and its error."""
    from PIL import UnidentifiedImageError

    decode = decoder(crop) if crop is not None else None

    def read(path: str) -> tuple[bytes, Crops | None, str]:
        content = b""
        try:
            content = Path(path).read_bytes()
            pixels = decode(content) if decode is not None else None
        except UnidentifiedImageError:
            return b"", None, "no image, or of a kind that is not known" if content else "empty"
        except Exception as error:  # noqa: BLE001 - Pillow has no one error for a damaged file
            reason = getattr(error, "strerror", None)
            return b"", None, reason or str(error) or type(error).__name__
        return hashlib.sha256(content).digest(), pixels, ""

    return read
