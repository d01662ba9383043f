"""Interface of runtimes in a worker process; a device names one as ``module:attribute``."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[Any]]
"""Input arrays by name."""
Options = Mapping[str, Any]
"""What a device passes to its own runtime when a model is loaded; plain values."""
TimedRun = Callable[[], "float | None"]
"""One whole run. It returns None, and the worker takes the wall time, or the seconds that the
runtime itself measured."""

INPUT_SPEC = "hwsearch.input"  # metadata entry of an exported file
RUN = "run"
"""The timing mode of a runtime that has only one."""
ON_DEVICE, END_TO_END = "on the device", "end to end"
"""The two timing modes of a runtime whose device has its own memory: inputs and outputs are in it,
or are copied there and back."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An input as a model declares it.

    Attributes:
        dtype: numpy's name of its type; the runtime's own name where numpy has none.
        shape: Sizes; for a dynamic dimension its name, or None where it has no name.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


def stated_shapes(input_spec: str | None) -> dict[str, tuple[int, ...]]:
    """Return input -> shape of one sample, by the input spec in the metadata of a file.

    Exports write it (`INPUT_SPEC`); a file of other origin has none. What is open in the file, as
    the length of a text, has that size when it is timed.
    """
    inputs = json.loads(input_spec)["inputs"] if input_spec else ()
    return {each["name"]: tuple(each["shape"]) for each in inputs}


@dataclass(frozen=True, slots=True)
class Bound:
    """A model that is ready to run on fixed inputs.

    Attributes:
        modes: Timing modes by name: `RUN` where there is one, else `ON_DEVICE` and `END_TO_END`.
        outputs: Outputs of a first run, by name.
    """

    modes: Mapping[str, TimedRun]
    outputs: Feeds


class LoadedModel(Protocol):
    """A model that a runtime has accepted, with its declared ``inputs``.

    A model may have ``stated``, input -> shape of one sample; see `stated_shapes`.
    A model loaded for profiling also has ``profile()``, which ends the profile and returns the
    names of the executed nodes and a (runs, nodes) array of their seconds.
    """

    inputs: Sequence[Declared]

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs for a batch of any size."""

    def bind(self, feeds: Feeds) -> Bound:
        """Run once, and prepare repeated runs on these inputs."""


class Runtime(Protocol):
    """A library that runs models, and its version."""

    version: str

    def load(self, source: str | bytes, *, batch: int | None, options: Options) -> LoadedModel:
        """Load a model from an ONNX file's path or content, with the device's options.

        ``batch`` is the value of a dynamic first dimension; None where batches vary.

        Raises:
            Exception: Any, with the reason, when the runtime refuses the model.
        """
