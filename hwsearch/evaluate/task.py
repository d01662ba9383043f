"""A task: samples in three splits and a per-sample metric; the engine knows no more of data."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError

Batch = tuple[dict[str, NDArray[Any]], NDArray[Any]]
Preprocess = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How good the outputs for each sample are.

    Attributes:
        name: The objective it supplies, such as ``"top1"``.
        per_sample: Maps (outputs in the order of the model, targets (n,)) to (n,) numbers.
        direction: ``"max"`` or ``"min"``.
        unit: Of the scaled mean.
        scale: The reported value is the mean over samples times this.
    """

    name: str
    per_sample: Callable[[list[NDArray[Any]], NDArray[Any]], NDArray[Any]]
    direction: str = "max"
    unit: str = ""
    scale: float = 1.0


def _correct(outputs: list[NDArray[Any]], targets: NDArray[Any]) -> NDArray[Any]:
    correct: NDArray[Any] = outputs[0].argmax(axis=1) == targets
    return correct


TOP1 = Metric(name="top1", per_sample=_correct, unit="%", scale=100.0)


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

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield (inputs ready for the model, targets) in order, the last one maybe smaller."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            fed = {
                name: self.preprocess[name](array[part])
                if name in self.preprocess
                else array[part]
                for name, array in self.inputs.items()
            }
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What subnets are scored by.

    Attributes:
        spec: As the user wrote it, such as ``"imagefolder:/data/val"``.
        metric: Supplies the accuracy objective.
        calibration: Samples for batch statistics; their targets are not used. None where the
            supernet has none to recalibrate.
        search: What a search selects by.
        report: What selects nothing; disjoint from the others.
    """

    spec: str
    metric: Metric
    search: Samples
    report: Samples
    calibration: Samples | None = None

    def __post_init__(self) -> None:
        for split in ("search", "report"):
            if not len(getattr(self, split)):
                raise InputError(f"data {self.spec!r}: its {split} split is empty")
