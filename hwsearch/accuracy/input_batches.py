"""Inputs of samples without their targets, as calibration reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from hwsearch.accuracy.subsets import spread
from hwsearch.accuracy.task import SplitSamples
from hwsearch.supernets.interface import InputSpec

# Of an elastic model: statistics of patches need more samples than channels; beyond some hundred
# little changes.
MOST_SAMPLES: Final = 512


@dataclass(frozen=True, slots=True, eq=False)
class InputBatches:
    """Inputs by name, batch by batch; each iteration reads them anew.

    They are not kept, since all preprocessed inputs might not fit into memory.

    Attributes:
        samples: None for no batches.
        size: Samples of a batch.
        spec: Of the architecture that reads them.
        most: Samples, spread evenly over all; None for all.
    """

    samples: SplitSamples | None
    size: int
    spec: InputSpec
    most: int | None = None

    @property
    def digest(self) -> str:
        """Return a hash of the samples, and of what is made of them."""
        stored = "none" if self.samples is None else self.samples.digest
        return f"{stored} {self.size} {self.most} {self.spec}"

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        if self.samples is None:
            return
        left = len(self.samples) if self.most is None else self.most
        samples = self.samples if self.most is None else spread(self.samples, self.most)
        for fed, _ in samples.batches(self.size, self.spec):
            yield {name: array[:left] for name, array in fed.items()}
            left -= self.size
            if left <= 0:  # other kinds of samples than arrays and files are not spread
                return
