"""Samples that are image files, decoded for the input of each architecture."""

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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
NAMED = 5
TOLD_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Read:
    """Result of reading a file: its SHA-256 and its crop if requested, or an error."""

    digest: bytes = b""
    crop: Crops | None = None
    error: str = ""


class DecodedImageCache:
    """Decoded crops of all splits; the default budget is a quarter of the available memory."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
        # Least recently used first.
        self._kept: OrderedDict[CropSize, dict[object, Crops]] = OrderedDict()

    def get(self, size: CropSize, owner: object) -> Crops | None:
        """Return the (n, height, width, channels) crops of a split, or None."""
        if size in self._kept:
            self._kept.move_to_end(size)
        return self._kept.get(size, {}).get(owner)

    def make_room(self, size: CropSize, images: int) -> Crops | None:
        """Return an empty array for crops, or None where they do not fit.

        Other sizes are evicted, the least recently used first; other splits of the same size are
        not.
        """
        shape = (images, *size.shape)
        wanted = int(np.prod(shape, dtype=np.int64))
        if self._used(size) + wanted > self.budget:
            return None
        for other in [kept for kept in self._kept if kept != size]:
            if sum(map(self._used, self._kept)) + wanted <= self.budget:
                break
            del self._kept[other]
        return np.empty(shape, np.uint8)

    def keep(self, size: CropSize, owner: object, crops: Crops) -> None:
        """Keep the crops that room was made for."""
        self._kept.setdefault(size, {})[owner] = crops
        self._kept.move_to_end(size)

    def _used(self, size: CropSize) -> int:
        return sum(crops.nbytes for crops in self._kept.get(size, {}).values())


class ImageSamples:
    """Images of one split in files; see `hwsearch.accuracy.task.SplitSamples`.

    Images are decoded at the first request for a crop size, and kept where memory allows in a
    cache that the splits of a task share. Messages name files relative to ``root``; ``spec`` is
    the default input spec of batches.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        targets: NDArray[np.int64],
        spec: InputSpec,
        cache: DecodedImageCache,
    ) -> None:
        self.root, self.paths, self.targets = root, list(paths), targets
        self.spec, self.cache = spec, cache
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the files' bytes and the targets, 16 digits."""
        if self._digest is None:
            found = [r for part in in_parallel(_reader(None), self.paths, AT_A_TIME) for r in part]
            self._refuse(self._unreadable(found))
            self._digest = self._digest_of(each.digest for each in found)
        return self._digest

    def batches(self, size: int, spec: InputSpec | None = None) -> Iterator[Batch]:
        """Yield batches; see `hwsearch.accuracy.task.SplitSamples.batches`."""
        spec = spec if spec is not None else self.spec
        crop = crop_size(spec)
        normalise, start = image_preprocess(image_preprocessing(spec)), 0
        for crops in self._crops(size, crop):
            targets = self.targets[start : start + len(crops)]
            yield {spec.inputs[0].name: normalise(crops)}, targets
            start += len(crops)

    def read(self, spec: InputSpec) -> Iterator[list[str]]:
        """Read, hash and decode every file; cache crops that fit; yield errors of each part."""
        for _, unreadable in self._decoded(crop_size(spec), AT_A_TIME):
            yield unreadable

    def _crops(self, size: int, crop: CropSize) -> Iterator[Crops]:
        """Yield (size, height, width, channels) uint8, from the cache or from the files."""
        kept = self.cache.get(crop, self)
        if kept is not None:
            yield from (kept[start : start + size] for start in range(0, len(kept), size))
            return
        unreadable: list[str] = []
        for crops, errors in self._decoded(crop, size):
            unreadable += errors
            if not unreadable:
                yield np.stack(crops)
        self._refuse(unreadable)

    def _decoded(self, crop: CropSize, size: int) -> Iterator[tuple[list[Crops], list[str]]]:
        """Yield crops and errors of ``size`` files at a time; keep crops and digest of a whole."""
        keep = self.cache.make_room(crop, len(self))
        digests: list[bytes] = []
        whole = True
        for part in in_parallel(_reader(crop), self.paths, size):
            unreadable = self._unreadable(part, len(digests))
            whole = whole and not unreadable
            crops = [each.crop for each in part if each.crop is not None]
            if keep is not None and whole:
                keep[len(digests) : len(digests) + len(part)] = crops
            digests += [result.digest for result in part]
            yield crops, unreadable
        if whole:
            self._digest = self._digest_of(digests)
            if keep is not None:
                self.cache.keep(crop, self, keep)

    def _unreadable(self, results: Sequence[_Read], start: int = 0) -> list[str]:
        return [
            f"{os.path.relpath(self.paths[row], self.root)} ({result.error})"
            for row, result in enumerate(results, start)
            if result.error
        ]

    def _refuse(self, unreadable: list[str]) -> None:
        if unreadable:
            raise _unreadable_error(self.root, unreadable, len(self))

    def _digest_of(self, digests: Iterable[bytes]) -> str:
        digest = hashlib.sha256(b"".join(digests))
        digest.update(np.ascontiguousarray(self.targets, np.int64).tobytes())
        return digest.hexdigest()[:16]


def read_images(task: Task, spec: InputSpec, progress: "Progress") -> None:
    """Read, hash and decode every image file of a task once, with progress in images per second.

    Raises:
        DataError: Some cannot be decoded; the text says how many, which and why.
    """
    splits = (task.calibration, task.search, task.report)
    files = [samples for samples in splits if isinstance(samples, ImageSamples)]
    total = sum(map(len, files))
    if not total:
        return
    progress.phase("read", total)
    unreadable: list[str] = []
    done = 0
    begin = told = time.monotonic()
    for samples in files:
        left = len(samples)
        for failed in samples.read(spec):
            step = min(AT_A_TIME, left)
            left, done = left - step, done + step
            unreadable += failed
            progress.advance(step)
            if time.monotonic() - told > TOLD_EVERY_S or done == total:
                told = time.monotonic()
                progress.state(**{"images/s": done / max(told - begin, 1e-9)})
    if unreadable:
        raise _unreadable_error(files[0].root, unreadable, total)


def _unreadable_error(root: Path, unreadable: list[str], total: int) -> DataError:
    named = ", ".join(unreadable[:NAMED]) + (", ..." if len(unreadable) > NAMED else "")
    return DataError(
        f"{len(unreadable)} of {total} images in {str(root)!r} cannot be decoded: {named}. "
        "Repair or remove them."
    )


def _reader(crop: CropSize | None) -> Callable[[str], _Read]:
    """Return a function that reads and hashes a file, and decodes it where a crop is given."""
    from PIL import UnidentifiedImageError

    decode = decoder(crop) if crop is not None else None

    def read(path: str) -> _Read:
        content = b""
        try:
            content = Path(path).read_bytes()
            pixels = decode(content) if decode is not None else None
        except UnidentifiedImageError:
            return _Read(error="no image, or of a kind that is not known" if content else "empty")
        except OSError as error:
            return _Read(error=error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 - Pillow has no one error for a damaged file
            return _Read(error=str(error) or type(error).__name__)
        return _Read(hashlib.sha256(content).digest(), pixels)

    return read
