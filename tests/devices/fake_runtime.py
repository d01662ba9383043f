"""A runtime without a library, as a stranger's device might bring one to its worker process.

Its device has a memory and a clock of its own: a model takes a millisecond for each unit of the
digit that its name ends with, and copying half a millisecond. The anchor takes two milliseconds.
"""

from pathlib import Path

import numpy as np

from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Bound, Declared

NAME = "tests.devices.fake_runtime:RUNTIME"


class FakeModel:
    def __init__(self, size):
        self.inputs = [Declared("image", "float32", ("batch", 3, 8, 8))]
        self._size = size

    def run(self, feeds):
        (image,) = feeds.values()
        return [np.full((len(image), 4), self._size, np.float32)]

    def bind(self, feeds):
        modes = {
            ON_DEVICE: lambda: 1e-3 * self._size,
            END_TO_END: lambda: 1e-3 * self._size + 5e-4,
        }
        return Bound(modes, {"scores": self.run(feeds)[0]})


class FakeRuntime:
    version = "7.0"

    def load(self, source, *, batch, options):
        if isinstance(source, bytes):
            return FakeModel(2)
        name = Path(source).stem
        if not name[-1].isdigit():
            raise ValueError(f"{name} is too large for {options['memory']}")
        return FakeModel(int(name[-1]))


RUNTIME = FakeRuntime()
