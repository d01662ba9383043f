"""Cache of decoded images, by the size of their crops, within a budget of memory."""

from collections import OrderedDict

import numpy as np

from hwsearch.accuracy.decoding import Crops, CropSize
from hwsearch.machine import available_memory_bytes

SHARE_OF_MEMORY = 0.25


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
