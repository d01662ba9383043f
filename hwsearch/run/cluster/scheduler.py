"""Who evaluates proposals: work is handed out, lost work once more; results come in any order."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from hwsearch.errors import EvaluationError, HwsearchError
from hwsearch.evaluation.evaluator import Values
from hwsearch.run.cluster.executor import Executor
from hwsearch.run.cluster.jobs import Findings, Work
from hwsearch.run.progress import Progress, Silent
from hwsearch.space import Architecture

TRIES = 2  # a worker lost under the same architecture twice is no accident of the worker's
_AHEAD = 1  # waits at the workers, so that none is idle while the next is proposed


class Desk(Protocol):
    """Knows what is still to be done, and keeps what was; see `hwsearch.run.cluster.job_source`."""

    def step(self, arch: Architecture) -> Work | None:
        """Return the next piece of work on an architecture; None where nothing is missing."""
        ...

    def keep(self, findings: Findings) -> None:
        """Store what was measured."""
        ...

    def values(self, arch: Architecture) -> Values:
        """Return what is known of an architecture."""
        ...


class Crew:
    """Evaluates the proposals of a search through an executor.

    Args:
        executor: Does the work.
        desk: Cuts the work into pieces; None where the executor takes whole rounds.
        progress: Told of every worker that was lost.
    """

    def __init__(
        self,
        executor: Executor,
        desk: Desk | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._executor, self._desk, self._progress = executor, desk, progress or Silent()
        self._ready: dict[str, Values | EvaluationError] = {}
        self._lost: Counter[tuple[str, ...]] = Counter()

    @property
    def size(self) -> int:
        """How many pieces of work are done at a time."""
        return max(1, self._executor.size)

    def batch(self, wanted: int, given: int | None) -> int:
        """Return how many architectures to propose at a time.

        Args:
            wanted: What the tactic proposes.
            given: What the settings say.
        """
        return wanted if self._executor.whole else given or 1

    def has_room(self, n_open: int) -> bool:
        """Whether somebody is idle, or soon will be, with so many architectures open."""
        if self._executor.whole:
            return n_open == 0
        size = self.size
        return n_open < size + (_AHEAD if size > 1 else 0)

    def start(self, archs: Sequence[Architecture]) -> None:
        """Have architectures evaluated; what is known of them is not measured again."""
        if self._desk is not None:
            for arch in archs:
                self._go_on(arch, self._desk)
        elif archs:
            self._executor.submit(Work(archs=tuple(archs), quantities=()))

    def finished(self) -> dict[str, Values | EvaluationError]:
        """Wait until some are evaluated.

        Returns:
            Key -> values or failure; each key once.
        """
        while not self._ready:
            work, findings = self._executor.next()
            if findings.lost is not None:
                self._again(work, findings.lost)
                continue
            self._ready |= findings.values
            if self._desk is not None:
                self._take(work, findings, self._desk)
        ready, self._ready = self._ready, {}
        return ready

    def close(self) -> None:
        """Give up what is not done."""
        self._executor.close()

    def _take(self, work: Work, findings: Findings, desk: Desk) -> None:
        desk.keep(findings)
        failed = {key: EvaluationError(reason) for key, reason in findings.failed.items()}
        self._ready |= failed
        for arch in work.archs:
            if arch.key not in failed:
                self._go_on(arch, desk, after=work)

    def _go_on(self, arch: Architecture, desk: Desk, after: Work | None = None) -> None:
        step = desk.step(arch)
        if step is None:
            self._ready[arch.key] = desk.values(arch)
        elif after is not None and step.quantities == after.quantities:
            raise HwsearchError(
                f"a worker was asked for {', '.join(step.quantities)} of {arch.key} and gave "
                "something else; end all workers and start them again with one version of hwsearch"
            )
        else:
            self._executor.submit(step)

    def _again(self, work: Work, reason: str) -> None:
        """Have lost work done again, as often as is sensible."""
        keys = tuple(arch.key for arch in work.archs)
        what = (*keys, *work.quantities)
        self._lost[what] += 1
        named = ", ".join(keys)
        if self._lost[what] < TRIES:
            self._progress.note(f"a worker was lost with {named}, which is done again: {reason}")
            self._executor.submit(work)
        else:
            text = f"its worker was lost {TRIES} times; the last time: {reason}"
            self._ready |= {key: EvaluationError(text) for key in keys}
