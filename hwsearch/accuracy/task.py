"""A task: samples in three splits, and the metric that they are scored by."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import Metric
from hwsearch.errors import DataError, InputError

if TYPE_CHECKING:
    from hwsearch.supernets.base import InputSpec

CALIBRATION_BATCH = 125
NO_DATA = "none"  # how a task without samples is written down

Batch = tuple[dict[str, NDArray[Any]], NDArray[Any]]
Preprocess = Callable[[NDArray[Any]], NDArray[Any]]


class SplitSamples(Protocol):
    """Samples of one split: `Samples` are arrays, `hwsearch.accuracy.images` reads files."""

    @property
    def targets(self) -> NDArray[Any]:
        """(n,) array."""
        ...

    @property
    def digest(self) -> str:
        """Hash of all that the samples are; a run goes on only with equal digests."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int, spec: "InputSpec | None" = None) -> Iterator[Batch]:
        """Yield (inputs ready for the model, targets) in order, the last one maybe smaller.

        Args:
            size: Samples in a batch.
            spec: What the architecture expects; None for what the samples were loaded for.

        Raises:
            DataError: The samples cannot be read, or not for this spec.
        """
        ...


@dataclass(frozen=True)
class Samples:
    """Inputs and targets of one split, held in memory and preprocessed batch by batch.

    Attributes:
        inputs: Input name -> (n, ...) array, as stored.
        targets: (n,) array.
        preprocess: Input name -> function from a stored batch to what the model is fed.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any]
    preprocess: Mapping[str, Preprocess]

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, spec: "InputSpec | None" = None) -> Iterator[Batch]:
        """Yield (inputs ready for the model, targets) in order, the last one maybe smaller.

        Raises:
            DataError: The spec asks for inputs of other shapes.
        """
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            fed = {
                name: self.preprocess[name](array[part])
                if name in self.preprocess
                else array[part]
                for name, array in self.inputs.items()
            }
            if spec is not None:
                _check_shapes(fed, spec)
            yield fed, self.targets[part]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of inputs and targets, 16 digits."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.inputs[name]).tobytes())
        digest.update(np.ascontiguousarray(self.targets).tobytes())
        return digest.hexdigest()[:16]


def _check_shapes(fed: Mapping[str, NDArray[Any]], spec: "InputSpec") -> None:
    for tensor in spec.inputs:
        if tensor.name in fed and fed[tensor.name].shape[1:] != tensor.shape:
            raise DataError(
                f"the samples' {tensor.name} is of shape {fed[tensor.name].shape[1:]}, but this "
                f"architecture's of shape {tensor.shape}; arrays serve one resolution only: "
                "search one (--freeze resolution=...), or read images by --data imagefolder:PATH"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The data and the metric of a search.

    Attributes:
        spec: As the user wrote it, such as ``"imagefolder:/data/val"``.
        metric: Supplies the accuracy objective.
        calibration: Samples for batch statistics; their targets are not used. None where the
            supernet has none to recalibrate.
        search: What a search selects by.
        report: What selects nothing; disjoint from the others.
        calibration_batch: How many calibration samples share their batch statistics.
        warnings: Doubts about the scores, one sentence each.
    """

    spec: str
    metric: Metric
    search: SplitSamples
    report: SplitSamples
    calibration: SplitSamples | None = None
    calibration_batch: int = CALIBRATION_BATCH
    warnings: tuple[str, ...] = ()

    @property
    def scores(self) -> bool:
        """Whether there are samples to score subnets by: all but ``none`` have some."""
        return self.spec != NO_DATA

    def __post_init__(self) -> None:
        if self.calibration_batch < 1:
            raise InputError(
                f"data {self.spec!r}: calibration_batch is {self.calibration_batch}; "
                "give a whole number from 1 up"
            )
        for split in ("search", "report") if self.spec != NO_DATA else ():
            if not len(getattr(self, split)):
                raise InputError(f"data {self.spec!r}: its {split} split is empty")
        if self.calibration is not None and not len(self.calibration):
            raise InputError(
                f"data {self.spec!r}: its calibration split is empty; give None for no samples"
            )
