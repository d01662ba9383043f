"""A task: samples in three splits, and the metric that scores them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import UNDECIDED, Metric, Targets
from hwsearch.errors import DataError, InputError

if TYPE_CHECKING:
    from hwsearch.supernets.interface import InputSpec

CALIBRATION_BATCH = 125
NO_DATA = "none"  # spec of a task without samples

UNLABELLED = -1  # target of a sample without a label
# Whether data may be without labels: where they are optional, labels that cannot be understood
# are refused; where they are unneeded, these are left out.
Labels = Literal["needed", "optional", "unneeded"]
Batch = tuple[dict[str, NDArray[Any]], Targets]
Preprocess = Callable[[NDArray[Any]], NDArray[Any]]


class SplitSizes(NamedTuple):
    """Number of samples of each split where the data suffice."""

    calibration: int = 500
    search: int = 2500
    report: int = 2500

    def within(self, total: int) -> "SplitSizes":
        """Return these sizes, shrunk in proportion to the data, but none to 0."""
        total = min(total, sum(self))
        share = total / sum(self)
        calibration, search = (n and max(1, int(n * share)) for n in self[:2])
        return SplitSizes(calibration, search, total - calibration - search)

    def in_thirds(self, total: int) -> "SplitSizes":
        """Return sizes that shrink to equal ones, so that few samples suffice to calibrate.

        Statistics of a whole model need some hundred samples, comparisons with its outputs as
        many.
        """
        calibration = min(self.calibration, total // 3)
        search = min(self.search, (total - calibration) // 2)
        return SplitSizes(calibration, search, min(self.report, total - calibration - search))


SPLITS = SplitSizes._fields


class SplitSamples(Protocol):
    """Samples of one split: `Samples` are arrays, `hwsearch.accuracy.images` reads files."""

    @property
    def targets(self) -> NDArray[Any]:
        """(n,) array; -1 for samples without labels."""

    @property
    def digest(self) -> str:
        """Return a hash of the samples; a run continues only with equal digests."""

    def __len__(self) -> int: ...

    def batches(self, size: int, spec: "InputSpec | None" = None) -> Iterator[Batch]:
        """Yield (model inputs, targets) in order; the last batch may be smaller than ``size``.

        ``spec`` is the architecture's input spec; None is the one that the samples were loaded
        for.

        Raises:
            DataError: The samples cannot be read, or not for this spec.
        """


@dataclass(frozen=True)
class Samples:
    """Inputs and targets of one split, held in memory and preprocessed batch by batch.

    Attributes:
        inputs: Input name -> (n, ...) array, as stored.
        targets: (n,) array.
        preprocess: Input name -> function from a stored batch to the model's input.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any]
    preprocess: Mapping[str, Preprocess]

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, spec: "InputSpec | None" = None) -> Iterator[Batch]:
        """Yield batches as `SplitSamples.batches` does; DataError is for other input shapes."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            fed = {name: array[part] for name, array in self.inputs.items()}
            fed |= {n: prepare(fed[n]) for n, prepare in self.preprocess.items() if n in fed}
            if spec is not None:
                _check_shapes(fed, spec)
            yield fed, self.targets[part]

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of inputs and targets, 16 digits."""
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
        spec: Data spec of the user, such as ``"imagefolder:/data/val"``.
        metric: Supplies the accuracy objective. Without one, samples are compared with the outputs
            of an original model; see `hwsearch.accuracy.answers.answered`.
        beside: Further metrics, scored with it on the same outputs.
        calibration: Samples for batch statistics, without use of targets. None where the supernet
            has no statistics to recalibrate.
        search: Samples for selection.
        report: Samples for reporting only; disjoint from the others.
        calibration_batch: Number of calibration samples that share batch statistics.
        warnings: Doubts about the scores, one sentence each.
    """

    spec: str
    metric: Metric = UNDECIDED
    search: SplitSamples
    report: SplitSamples
    calibration: SplitSamples | None = None
    calibration_batch: int = CALIBRATION_BATCH
    warnings: tuple[str, ...] = ()
    beside: tuple[Metric, ...] = ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return all metrics, the one of the accuracy objective first."""
        return self.metric, *self.beside

    @property
    def labelled(self) -> bool:
        """Return whether the samples to select by have labels."""
        targets = np.asarray(self.search.targets)
        return targets.dtype.kind not in "iu" or not bool((targets == UNLABELLED).all())

    @property
    def scores(self) -> bool:
        """Return whether there are samples to score subnets by; only ``none`` has none."""
        return self.spec != NO_DATA

    def __post_init__(self) -> None:
        if self.calibration_batch < 1:
            raise InputError(
                f"data {self.spec!r}: calibration_batch is {self.calibration_batch}; "
                "give a whole number from 1 up"
            )
        for split in ("search", "report"):
            if self.scores and not len(getattr(self, split)):
                raise InputError(f"data {self.spec!r}: its {split} split is empty")
        if self.calibration is not None and not len(self.calibration):
            raise InputError(
                f"data {self.spec!r}: its calibration split is empty; give None for no samples"
            )


def stratified(
    labels: NDArray[Any], sizes: Sequence[int], seed: int = 0
) -> list[NDArray[np.int64]]:
    """Draw disjoint subsets of these sizes that hold every class of (n,) labels in proportion.

    Equal data give equal subsets on every machine.

    Returns:
        For each size, sorted indices into ``labels``.
    """
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    # A sample's rank is its relative position within its class, so that any leading part of
    # the order holds all classes in proportion; ties are in the order of the classes.
    order = np.concatenate(shuffled)
    rank = np.concatenate([(np.arange(len(s)) + 0.5) / len(s) for s in shuffled])
    order = order[np.argsort(rank, kind="stable")]
    ends = np.cumsum(sizes)
    return [np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
