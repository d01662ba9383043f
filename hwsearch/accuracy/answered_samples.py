"""Samples with the answers of the original model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import Answers, Targets
from hwsearch.accuracy.task import Batch, SplitSamples
from hwsearch.files import digest_of_text
from hwsearch.supernets.interface import InputSpec


@dataclass(eq=False, repr=False)
class AnsweredSamples:
    """Samples with the original's answers; see `hwsearch.accuracy.task.SplitSamples`.

    Attributes:
        samples: The samples without answers.
        answers: Output name -> (n, ...) outputs of the original, in the declared order.
        original: What the answers depend on besides the samples: the original's digest.
        mask: (n, length) mask of tokens, or None.
    """

    samples: SplitSamples
    answers: Mapping[str, NDArray[Any]]
    original: str
    mask: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def targets(self) -> NDArray[Any]:
        """Return the (n,) labels; -1 for samples without labels."""
        return self.samples.targets

    @cached_property
    def digest(self) -> str:
        """Return a hash of samples and original; rounding of the answers does not count."""
        return digest_of_text(f"{self.samples.digest} {self.original}")

    def batches(self, size: int, spec: InputSpec | None = None) -> Iterator[Batch]:
        """Yield (model inputs, `Answers`); see `hwsearch.accuracy.task.SplitSamples.batches`."""
        start = 0
        for fed, labels in self.samples.batches(size, spec):
            part = slice(start, start + len(labels))
            yield fed, self.part(part)
            start = part.stop

    def part(self, part: slice) -> Answers:
        """Return the answers to some samples."""
        outputs = {name: array[part] for name, array in self.answers.items()}
        mask = None if self.mask is None else self.mask[part]
        return Answers(np.asarray(self.targets[part]), outputs, mask)


def stored(samples: SplitSamples) -> SplitSamples:
    """Return samples without the answers that are kept beside them."""
    return samples.samples if isinstance(samples, AnsweredSamples) else samples


def first_targets(samples: SplitSamples, n: int) -> Targets:
    """Return the targets of the first n samples."""
    few = slice(0, n)
    return samples.part(few) if isinstance(samples, AnsweredSamples) else samples.targets[few]
