"""What a worker process asks of a runtime; each device names one as ``module:attribute``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[Any]]
Options = Mapping[str, Any]
"""What a device tells its own runtime about loading a model; JSON-able."""
Once = Callable[[], "float | None"]
"""One run from start to end. It returns None, and the worker takes the wall time, or the seconds
that the runtime itself measured."""

RUN = "run"
"""The way in which a runtime runs that knows only one."""
ON_DEVICE, END_TO_END = "on the device", "end to end"
"""The two ways of a runtime whose device has a memory of its own: inputs and outputs lie there, or
are copied there and back."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An input as a model declares it.

    Attributes:
        name: As in the file.
        dtype: numpy's name of its type; the runtime's own name where numpy has none.
        shape: Sizes; the name of a size that is not fixed, None where it has no name.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class LoadedModel(Protocol):
    """A model that a runtime has accepted.

    A model that was loaded for profiling also has ``profile()``, which ends the profile and
    returns the names of the executed nodes and a (runs, nodes) array of their seconds.

    Attributes:
        inputs: What it declares.
    """

    inputs: Sequence[Declared]

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs for any batch."""

    def bind(self, feeds: Feeds) -> Mapping[str, Once]:
        """Make ready to run on these inputs again and again.

        Returns:
            The ways in which one run can be timed, by name: `RUN` where there is one, else
            `ON_DEVICE` and `END_TO_END`.
        """


class Runtime(Protocol):
    """A library that runs models, as a worker process sees it.

    Attributes:
        version: The library's.
    """

    version: str

    def load(self, source: str | bytes, *, batch: int | None, options: Options) -> LoadedModel:
        """Load a model.

        Args:
            source: The path of an ONNX file, or its content.
            batch: What a first size that is not fixed becomes; None where batches vary.
            options: What the device asks for.

        Raises:
            Exception: Of any kind, with the reason, when the runtime refuses the model.
        """


def is_number(dtype: str) -> bool:
    """Whether a declared type is one of numbers that numpy knows."""
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False
