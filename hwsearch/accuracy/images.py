"""Samples that are image files, decoded for each architecture's resolution."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.crops import (
    CropMemory,
    Crops,
    Resolution,
    decoder,
    image_preprocess,
    in_parallel,
)
from hwsearch.accuracy.task import Batch, Task
from hwsearch.errors import DataError
from hwsearch.supernets.base import ImagePreprocessing, InputSpec

if TYPE_CHECKING:
    from hwsearch.run.progress import Progress

AT_A_TIME = 64
NAMED = 5
TOLD_EVERY_S = 5.0


class ImageSamples:
    """Images of one split in files; see `hwsearch.accuracy.task.SplitSamples`.

    Crops of a resolution are decoded the first time that it is asked for, and kept where memory
    allows; where it does not, they are decoded anew each time.

    Args:
        root: Folder that messages name, and name files relative to.
        paths: (n,) files.
        targets: (n,) class of each.
        spec: The input spec that batches are for where none is given.
        memory: Keeps the crops; shared by the splits of a task.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        targets: NDArray[np.int64],
        spec: InputSpec,
        memory: CropMemory,
    ) -> None:
        self.root, self.paths, self.targets = root, list(paths), targets
        self.spec, self.memory = spec, memory
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """SHA-256 of the files' bytes and the targets, 16 digits."""
        if self._digest is None:
            hashes = [each for part in in_parallel(_hash, self.paths, AT_A_TIME) for each in part]
            self._refuse(self._unreadable(hashes))
            self._digest = self._digest_of(hashes)
        return self._digest

    def batches(self, size: int, spec: InputSpec | None = None) -> Iterator[Batch]:
        """Yield (inputs ready for the model, targets) in order, the last one maybe smaller.

        Raises:
            DataError: Files cannot be decoded; the text says how many and which.
        """
        spec = spec if spec is not None else self.spec
        preprocessing = _preprocessing(spec)
        normalise = image_preprocess(preprocessing)
        start = 0
        for crops in self._crops(size, (preprocessing.resize, preprocessing.crop)):
            targets = self.targets[start : start + len(crops)]
            yield {spec.inputs[0].name: normalise(crops)}, targets
            start += len(crops)

    def take(self, rows: NDArray[np.int64]) -> "ImageSamples":
        """Return the images of these rows, in this order; they share what crops may fill."""
        paths = [self.paths[row] for row in rows]
        return ImageSamples(self.root, paths, self.targets[rows], self.spec, self.memory)

    def read(self, spec: InputSpec) -> Iterator[list[str]]:
        """Read, hash and decode every file once; keep the crops if they fit.

        Yields:
            The result for each next few files: which of them cannot be read.
        """
        preprocessing = _preprocessing(spec)
        resolution = (preprocessing.resize, preprocessing.crop)
        keep = self.memory.make_room(resolution, len(self))
        hashes: list[bytes | None] = []
        for part in in_parallel(_hasher_and_decoder(resolution), self.paths, AT_A_TIME):
            start = len(hashes)
            for row, result in enumerate(part, start):
                hashes.append(result and result[0])
                if keep is not None and result is not None:
                    keep[row] = result[1]
            yield self._unreadable(part, start)
        if None not in hashes:
            self._digest = self._digest_of(hashes)
            if keep is not None:
                self.memory.keep(resolution, self, keep)

    def _crops(self, size: int, resolution: Resolution) -> Iterator[Crops]:
        """Yield (size, crop, crop, 3) uint8, from memory or from the files."""
        kept = self.memory.get(resolution, self)
        if kept is not None:
            yield from (kept[start : start + size] for start in range(0, len(kept), size))
            return
        keep = self.memory.make_room(resolution, len(self))
        unreadable: list[str] = []
        start = 0
        for part in in_parallel(_decoder_of_files(resolution), self.paths, size):
            unreadable += self._unreadable(part, start)
            if not unreadable:
                crops = np.stack([crop for crop in part if crop is not None])
                if keep is not None:
                    keep[start : start + len(part)] = crops
                yield crops
            start += len(part)
        self._refuse(unreadable)
        if keep is not None:
            self.memory.keep(resolution, self, keep)

    def _unreadable(self, results: Sequence[object], start: int = 0) -> list[str]:
        missing = [row for row, result in enumerate(results, start) if result is None]
        return [os.path.relpath(self.paths[row], self.root) for row in missing]

    def _refuse(self, unreadable: list[str]) -> None:
        if unreadable:
            raise _unreadable_error(self.root, unreadable, len(self))

    def _digest_of(self, hashes: Iterable[bytes | None]) -> str:
        digest = hashlib.sha256(b"".join(each for each in hashes if each is not None))
        digest.update(np.ascontiguousarray(self.targets, np.int64).tobytes())
        return digest.hexdigest()[:16]


def read_images(task: Task, spec: InputSpec, progress: "Progress") -> None:
    """Read, hash and decode every image file of a task once; other data are left alone.

    Args:
        task: Its splits.
        spec: Decides the resolution.
        progress: Told of a phase ``read`` and of images per second.

    Raises:
        DataError: Some cannot be decoded; the text says how many and which.
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


def _preprocessing(spec: InputSpec) -> ImagePreprocessing:
    if spec.preprocessing is None:
        raise DataError("the samples are images, but the inputs of this architecture are none")
    return spec.preprocessing


def _unreadable_error(root: Path, unreadable: list[str], total: int) -> DataError:
    named = ", ".join(unreadable[:NAMED]) + (", ..." if len(unreadable) > NAMED else "")
    return DataError(
        f"{len(unreadable)} of {total} images in {str(root)!r} cannot be decoded: {named}. "
        "Repair or remove them."
    )


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _hash(path: str) -> bytes | None:
    content = _content(path)
    return None if content is None else _hash_of(content)


def _hash_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _decoder_of_files(resolution: Resolution) -> Callable[[str], Crops | None]:
    decode = decoder(resolution)

    def read(path: str) -> Crops | None:
        content = _content(path)
        return None if content is None else decode(content)

    return read


def _hasher_and_decoder(resolution: Resolution) -> Callable[[str], tuple[bytes, Crops] | None]:
    decode = decoder(resolution)

    def read(path: str) -> tuple[bytes, Crops] | None:
        content = _content(path)
        crop = None if content is None else decode(content)
        return None if content is None or crop is None else (_hash_of(content), crop)

    return read
