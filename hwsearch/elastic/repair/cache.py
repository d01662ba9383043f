"""Cache of repaired weights, in memory and on disk."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load, save

from hwsearch.files import DIGITS, write_atomic

logger = logging.getLogger(__name__)
Arrays = dict[str, NDArray[np.float32]]


class RepairCache:
    """Arrays by layer and what is left of its input; those used last stay in memory.

    Args:
        folder: Of files for later processes; None for none.
        identity: Of model and statistics; files of another one are not read.
        most: Bytes in memory.
    """

    def __init__(self, folder: Path | None, identity: str, most: int) -> None:
        self._folder, self._identity, self._most = folder, identity, most
        self._held: OrderedDict[str, Arrays] = OrderedDict()
        self._bytes = 0

    def get(
        self, node: str, left: NDArray[np.bool_], solve: Callable[[], Arrays], lasting: bool
    ) -> Arrays:
        """Return arrays from memory, from disk, or solved now.

        Args:
            node: The layer.
            left: What is left of its input.
            solve: Computes the arrays.
            lasting: Whether they go to disk.
        """
        text = f"{self._identity} {node} {left.shape} {np.packbits(left).tobytes().hex()}"
        key = hashlib.sha256(text.encode()).hexdigest()[: 2 * DIGITS]
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        folder = self._folder if lasting else None
        found = None if folder is None else self._read(folder / f"{key}.safetensors")
        if found is None:
            found = solve()
            if folder is not None:
                self._write(folder / f"{key}.safetensors", found)
        self._hold(key, found)
        return found

    def _hold(self, key: str, arrays: Arrays) -> None:
        self._held[key] = arrays
        self._bytes += _size(arrays)
        while self._bytes > self._most and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1])

    def _read(self, path: Path) -> Arrays | None:
        try:
            return load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            logger.warning("the repaired weights %s are solved again: %s", path, error)
            return None

    def _write(self, path: Path, arrays: Arrays) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, save(arrays))
        except OSError as error:
            logger.warning(
                "repaired weights are kept in memory only: %s cannot be written: %s", path, error
            )
            self._folder = None


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
