"""Decoding image files, and keeping the decoded crops for as long as memory allows."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.task import Preprocess
from hwsearch.machine import available_memory_bytes, thread_limit
from hwsearch.supernets.base import ImagePreprocessing

T = TypeVar("T")
Crops: TypeAlias = NDArray[np.uint8]
Resolution: TypeAlias = tuple[int, int]
SHARE_OF_MEMORY = 0.25


def image_preprocess(preprocessing: ImagePreprocessing) -> Preprocess:
    """Return the function from (n, h, w, 3) uint8 crops to normalised (n, 3, h, w) float32."""
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    # Of the 256 values that there are: looked up, they cost a fifth of computing each pixel's.
    scaled = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - mean) / std

    def normalise(images: NDArray[Any]) -> NDArray[Any]:
        n, height, width, channels = images.shape
        ready = np.empty((n, channels, height, width), np.float32)
        for channel in range(channels):
            ready[:, channel] = scaled[:, channel][images[..., channel]]
        return ready

    return normalise


def decoder(resolution: Resolution) -> Callable[[bytes], Crops | None]:
    """Return the function that decodes as torchvision's loader, ``Resize`` and ``CenterCrop`` do.

    Args:
        resolution: Length that the shorter side is resized to, and side of the crop, in pixels.

    Returns:
        From a file's content to (crop, crop, 3) RGB, or None where it is no image.
    """
    # Here and not in the function, which threads call.
    from PIL import Image
    from torchvision.transforms.functional import center_crop, resize

    size, crop = resolution

    def decode(content: bytes) -> Crops | None:
        try:
            with Image.open(BytesIO(content)) as image:
                resized = resize(image.convert("RGB"), [size])
                return np.asarray(center_crop(resized, [crop]), np.uint8)
        except Exception:  # noqa: BLE001 - Pillow has no one error for a damaged file
            return None

    return decode


def in_parallel(
    function: Callable[[str], T], paths: Sequence[str], size: int
) -> Iterator[list[T]]:
    """Yield the results for ``size`` paths at a time, while the next ones are worked on.

    Threads will do: Pillow and hashlib let go of the interpreter while they work.
    """
    pool = ThreadPoolExecutor(thread_limit())
    ahead: deque[list[Future[T]]] = deque()
    try:
        for start in range(0, len(paths), size):
            ahead.append([pool.submit(function, path) for path in paths[start : start + size]])
            if len(ahead) > 1:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


class CropMemory:
    """Decoded crops of all splits of a task, by resolution, within a budget.

    Args:
        budget: Bytes; None takes a quarter of the memory that is available now.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
        # The resolution used longest ago comes first.
        self._kept: OrderedDict[Resolution, dict[object, Crops]] = OrderedDict()

    def get(self, resolution: Resolution, owner: object) -> Crops | None:
        """Return what is kept of a split at a resolution."""
        if resolution in self._kept:
            self._kept.move_to_end(resolution)
        return self._kept.get(resolution, {}).get(owner)

    def make_room(self, resolution: Resolution, images: int) -> Crops | None:
        """Return an empty array for crops, or None where they do not fit.

        Other resolutions give way to them, the one used longest ago first; other splits of the
        same resolution do not.
        """
        shape = (images, resolution[1], resolution[1], 3)
        wanted = images * resolution[1] ** 2 * 3
        if self._used(resolution) + wanted > self.budget:
            return None
        for other in [kept for kept in self._kept if kept != resolution]:
            if sum(map(self._used, self._kept)) + wanted <= self.budget:
                break
            del self._kept[other]
        return np.empty(shape, np.uint8)

    def keep(self, resolution: Resolution, owner: object, crops: Crops) -> None:
        """Keep the crops that room was made for."""
        self._kept.setdefault(resolution, {})[owner] = crops
        self._kept.move_to_end(resolution)

    def _used(self, resolution: Resolution) -> int:
        return sum(crops.nbytes for crops in self._kept.get(resolution, {}).values())
