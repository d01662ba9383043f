"""The one door that all work goes through, and the executor that is this process itself."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import Values
from hwsearch.run.cluster.jobs import Findings, Work
from hwsearch.space import Architecture

Measure = Callable[[Sequence[Architecture]], Mapping[str, Values | EvaluationError]]


class Executor(Protocol):
    """Does work, some of it at a time, and hands back what became of it as it is done.

    - What is submitted is done once, unless whoever does it is lost: then its findings say so,
      and whether it is done again is the caller's to decide.
    - Findings come in any order. What fails with one architecture is a finding; what stops a
      search, such as samples that cannot be read, is raised.
    - Latencies are measured one at a time on each device, with nothing of ours beside them.

    Attributes:
        whole: Whether a piece of work is best a whole round, whose architectures share a part of
            it, with all quantities; else it is one quantity of one architecture.
    """

    whole: bool

    @property
    def size(self) -> int:
        """How many pieces of work are done at a time, at least 1."""
        ...

    def submit(self, work: Work) -> None:
        """Take work; it begins as soon as somebody is free."""
        ...

    def next(self) -> tuple[Work, Findings]:
        """Wait for a piece of work to end.

        Raises:
            InputError: A worker cannot do this search: it lacks what the settings name, or has
                another version of it.
            DataError: Samples cannot be read.
        """
        ...

    def close(self) -> None:
        """Give up what is not done, and end what works; a second call does nothing."""
        ...


class InProcess:
    """Does all work in this process, one piece after the other, when it is asked for.

    Args:
        measure: Measures architectures and stores what it finds.
    """

    whole = True
    size = 1

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._waiting: deque[Work] = deque()

    def submit(self, work: Work) -> None:
        """Take work; see `Executor.submit`."""
        self._waiting.append(work)

    def next(self) -> tuple[Work, Findings]:
        """Do the work that waits longest; see `Executor.next`."""
        work = self._waiting.popleft()
        return work, Findings(values=self._measure(work.archs))

    def close(self) -> None:
        """Give up what waits."""
        self._waiting.clear()
