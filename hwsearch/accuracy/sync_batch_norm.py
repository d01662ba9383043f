"""Running a module on a batch whose own statistics each norm normalises by, on all CPUs."""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.accuracy.channel_statistics import Sums, joined, sums_of
from hwsearch.errors import EvaluationError
from hwsearch.machine import thread_limit

# Samples that pass from one norm to the next before others do, and the input values from which on
# it is half as many: more leave the cache, fewer take longer to change places than to compute.
# They decide the last bits of the statistics, and so are the same on every machine.
PART, LARGE = 32, 2**20
Part = tuple[Tensor, ...]


class Moments:
    """Weighted sums of one norm's batch means and biased variances."""

    def __init__(self) -> None:
        self.samples = 0
        self.mean: Tensor | float = 0.0
        self.var: Tensor | float = 0.0

    def add(self, batch: Sums) -> None:
        """Add those of a batch, weighted by its size."""
        self.samples += batch.samples
        self.mean = self.mean + batch.samples * batch.mean
        self.var = self.var + batch.samples * batch.var

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance over all batches: (channels,) and (channels,), float64.

        Raises:
            EvaluationError: There were no batches, or a statistic is not finite.
        """
        if not self.samples:
            raise EvaluationError("recalibration needs at least one batch that reaches every norm")
        mean = torch.as_tensor(self.mean) / self.samples
        var = torch.as_tensor(self.var) / self.samples
        if not (torch.isfinite(mean).all() and torch.isfinite(var).all()):
            raise EvaluationError("recalibration gave batch statistics that are not finite")
        return mean, var


@contextmanager
def part_threads() -> Iterator[Executor]:
    """Threads for the parts of batches, as many as there are parts; torch has no others meanwhile.

    Its own ones would go on spinning for a while beside them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(sys.maxsize) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def in_parts(inputs: Sequence[Tensor]) -> list[Part]:
    """Split a batch, (n, ...) for each input, into the parts that go through a module."""
    size = PART if PART * inputs[0][0].numel() < LARGE else PART // 2
    return list(zip(*(torch.split(each, size) for each in inputs), strict=True))


def run_adapting(
    module: nn.Module,
    parts: Sequence[Part],
    moments: Mapping[nn.Module, Moments],
    pool: Executor,
) -> list[Any]:
    """Run a module in eval mode on a batch whose own statistics each norm normalises by.

    Each part goes through by one thread, as many at a time as there are CPUs. At a norm all parts
    wait for the last one, and go on when the statistics of the whole batch are known. So what a
    part goes through between two norms stays in the cache, no layer waits for the slowest CPU,
    and the number of CPUs changes no bit.

    Args:
        module: The module; samples meet in its norms only.
        parts: What ``forward`` takes; see `in_parts`.
        moments: Receive the statistics, for each norm.
        pool: Runs them; see `part_threads`.

    Returns:
        The output of each part.
    """
    passage = _Passage(module, parts, moments)
    handles = [norm.register_forward_pre_hook(passage.meet) for norm in moments]
    try:
        return passage.run(pool)
    finally:
        for handle in handles:
            handle.remove()


def set_statistics(norm: nn.Module, mean: Tensor, var: Tensor) -> None:
    """Let a norm normalise by these."""
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(var)  # type: ignore[operator]


class _AbandonedError(Exception):
    """Another part has failed."""


class _Passage:
    """The parts of a batch on their way through a module, each in a thread of its own.

    As many threads run as there are CPUs. One that has to wait hands its CPU to one that need
    not, and sleeps until it is handed one itself.
    """

    def __init__(
        self,
        module: nn.Module,
        parts: Sequence[Part],
        moments: Mapping[nn.Module, Moments],
    ) -> None:
        self._module, self._parts, self._moments = module, parts, moments
        self._state = threading.Lock()
        self._idle, self._under_way, self._abandoned = thread_limit(), len(parts), False
        # Numbers of the parts that need a CPU only; the last one is the first to get it.
        self._ready = list(reversed(range(len(parts))))
        # Number of the part -> the norm that it has come to, and what it brings.
        self._waiting: dict[int, tuple[nn.Module, Sums]] = {}
        # A part sleeps by taking its lock once more; who hands it a CPU lets go of the lock.
        self._sleep = [threading.Lock() for _ in parts]
        self._thread = threading.local()

    def run(self, pool: Executor) -> list[Any]:
        """Return the output of each part; raise what the first of those that failed has raised."""
        for lock in self._sleep:
            lock.acquire()
        futures: list[Future[Any]] = []
        try:
            futures += (pool.submit(self._run, number) for number in range(len(self._parts)))
            with self._state:
                self._hand_out()
            wait(futures)
        finally:
            self._abandon()
            wait(futures)
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None and not isinstance(error, _AbandonedError):
                raise error
        return [future.result() for future in futures]

    def _run(self, number: int) -> Any:
        self._thread.number = number
        self._wake(number)
        try:
            with torch.no_grad():
                output = self._module(*self._parts[number])
        except BaseException:
            self._abandon()
            raise
        with self._state:
            self._under_way -= 1
            self._idle += 1
            self._settle()
            self._hand_out()
        return output

    def meet(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Let a part wait at a norm until that knows what to normalise by; a hook of the norm."""
        number, sums = self._thread.number, sums_of(args[0])
        with self._state:
            self._waiting[number] = norm, sums
            self._settle()
            goes_on = number in self._ready
            if goes_on:
                self._ready.remove(number)
            else:
                self._idle += 1
            self._hand_out()
        if not goes_on:
            self._wake(number)

    def _wake(self, number: int) -> None:
        """Sleep until a CPU is handed over."""
        self._sleep[number].acquire()
        if self._abandoned:
            raise _AbandonedError

    def _hand_out(self) -> None:
        """Give CPUs to those who need nothing else."""
        while self._idle and self._ready and not self._abandoned:
            self._idle -= 1
            self._sleep[self._ready.pop()].release()

    def _settle(self) -> None:
        """Once all have come to a norm, set the first one's, and let go on who waits there."""
        if not self._waiting or len(self._waiting) < self._under_way:
            return
        norm, _ = self._waiting[min(self._waiting)]
        together = [n for n, (place, _) in sorted(self._waiting.items()) if place is norm]
        batch = joined([self._waiting.pop(n)[1] for n in together])
        self._moments[norm].add(batch)
        set_statistics(norm, batch.mean, batch.var)
        self._ready += together

    def _abandon(self) -> None:
        """Let all end that sleep, or would."""
        with self._state:
            self._abandoned = True
            for lock in self._sleep:
                if lock.locked():
                    lock.release()
