"""Forward pass of micro-batches on all CPUs, with batch norm synchronised over the whole batch."""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.errors import EvaluationError
from hwsearch.machine import thread_limit

# Size of a layer's input that stays in the CPU cache between mean and variance.
CACHED_BYTES = 4 << 20
# Samples of a micro-batch, and the number of input values from which it is halved: larger ones
# exceed the cache, with smaller ones thread switches dominate. They affect the last bits of the
# statistics, and so are the same on every machine.
MICRO_BATCH, LARGE = 32, 2**20
MicroBatch = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelSums:
    """Sums over some values that give the mean and the variance of every channel.

    ``mean`` and ``squares``, the sum of squared deviations from it, are (channels,) float64;
    ``count`` is the number of values in each channel.
    """

    samples: int
    count: int
    mean: Tensor
    squares: Tensor

    @property
    def var(self) -> Tensor:
        """Return the (channels,) biased variance, float64."""
        return self.squares / self.count


def channel_sums(values: Tensor) -> ChannelSums:
    """Sum (n, channels, ...) values: within a sample in their precision, over samples in float64.

    torch's own batch norm sums all values of a channels-last batch in single precision, and is off
    by 0.5% of the variance for 200 images of 112 by 112.
    """
    rows = values.reshape(*values.shape[:2], -1).transpose(1, 2)
    at_a_time = max(1, CACHED_BYTES // (rows[0].numel() * rows.element_size()))
    return merged([_sums(part) for part in torch.split(rows, at_a_time)])


def _sums(rows: Tensor) -> ChannelSums:
    samples, count = len(rows), rows.shape[0] * rows.shape[1]
    mean = rows.sum(1).double().sum(0) / count
    centre = mean.to(rows.dtype)
    squares = (rows - centre).square_().sum(1).double().sum(0)
    return ChannelSums(samples, count, mean, squares)


def merged(parts: Sequence[ChannelSums]) -> ChannelSums:
    """Return the sums of all parts (Chan, Golub and LeVeque, "Updating formulae", 1979)."""
    counts = torch.tensor([[part.count] for part in parts], dtype=torch.float64)
    means = torch.stack([part.mean for part in parts])
    mean = (counts * means).sum(0) / counts.sum()
    squares = torch.stack([part.squares for part in parts]) + counts * (means - mean).square()
    samples, count = sum(part.samples for part in parts), sum(part.count for part in parts)
    return ChannelSums(samples, count, mean, squares.sum(0))


def batch_statistics(batches: Sequence[ChannelSums]) -> Tensor:
    """Return the means of the batches' means and biased variances, weighted by batch size.

    Returns:
        Mean and variance, (2, channels) float64.

    Raises:
        EvaluationError: There are no batches, or a statistic is not finite.
    """
    if not batches:
        raise EvaluationError("recalibration needs at least one batch that reaches every norm")
    weighted = [batch.samples * torch.stack([batch.mean, batch.var]) for batch in batches]
    statistics = sum(weighted[1:], weighted[0]) / sum(batch.samples for batch in batches)
    if not torch.isfinite(statistics).all():
        raise EvaluationError("recalibration gave batch statistics that are not finite")
    return statistics


def set_statistics(norm: nn.Module, mean: Tensor, var: Tensor) -> None:
    """Set the running mean and variance of a norm, in place."""
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(var)  # type: ignore[operator]


@contextmanager
def micro_batch_threads() -> Iterator[Executor]:
    """Yield a pool with a thread for every micro-batch; torch's own threads are off meanwhile.

    Those would continue to spin for a while and take CPU time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(sys.maxsize) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def micro_batches(inputs: Sequence[Tensor]) -> list[MicroBatch]:
    """Split a batch, (n, ...) for each input, into micro-batches."""
    size = MICRO_BATCH if MICRO_BATCH * inputs[0][0].numel() < LARGE else MICRO_BATCH // 2
    return list(zip(*(torch.split(each, size) for each in inputs), strict=True))


class SynchronisedRun:
    """Run of a module in eval mode; each norm normalises by the statistics of the whole batch.

    Each micro-batch has a thread, and as many run at a time as there are CPUs. A thread that waits
    at a norm for the last one passes its CPU on to one that is ready. So activations between two
    norms stay in the cache, no layer waits for the slowest CPU, and results are bit-equal for any
    number of CPUs. Samples may interact in the norms only. The sums of the batch are appended to
    those of each norm in ``sums``.
    """

    def __init__(
        self,
        module: nn.Module,
        batch: Sequence[MicroBatch],
        sums: Mapping[nn.Module, list[ChannelSums]],
    ) -> None:
        self._module, self._batch, self._sums = module, batch, sums
        self._state = threading.Lock()
        self._idle, self._unfinished, self._abandoned = thread_limit(), len(batch), False
        # Micro-batches that only wait for a CPU; the last one is the first to get it.
        self._ready = list(reversed(range(len(batch))))
        # Micro-batch -> the norm that it waits at, and its sums.
        self._waiting: dict[int, tuple[nn.Module, ChannelSums]] = {}
        # A thread sleeps by acquiring its lock once more; releasing the lock gives it a CPU.
        self._sleep = [threading.Lock() for _ in batch]
        self._thread = threading.local()

    def run(self, pool: Executor) -> list[Any]:
        """Return the output of each micro-batch; raise the first error of those that failed."""
        for lock in self._sleep:
            lock.acquire()
        hooks = [norm.register_forward_pre_hook(self._at_norm) for norm in self._sums]
        futures: list[Future[Any]] = []
        try:
            futures += (pool.submit(self._run, number) for number in range(len(self._batch)))
            with self._state:
                self._assign_cpus()
            wait(futures)
        finally:
            self._abandon()
            wait(futures)
            for hook in hooks:
                hook.remove()
        # The error of a module precedes the cancellations that it caused.
        for future in sorted(futures, key=lambda f: isinstance(f.exception(), CancelledError)):
            future.result()
        return [future.result() for future in futures]

    def _run(self, number: int) -> Any:
        self._thread.number = number
        self._wait_for_cpu(number)
        try:
            with torch.no_grad():
                output = self._module(*self._batch[number])
        except BaseException:
            self._abandon()
            raise
        with self._state:
            self._unfinished -= 1
            self._idle += 1
            self._synchronise()
            self._assign_cpus()
        return output

    def _at_norm(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Wait until the statistics of the whole batch are set; a forward pre-hook of a norm."""
        number, sums = self._thread.number, channel_sums(args[0])
        with self._state:
            self._waiting[number] = norm, sums
            self._synchronise()
            goes_on = number in self._ready
            if goes_on:
                self._ready.remove(number)
            else:
                self._idle += 1
            self._assign_cpus()
        if not goes_on:
            self._wait_for_cpu(number)

    def _wait_for_cpu(self, number: int) -> None:
        self._sleep[number].acquire()
        if self._abandoned:
            raise CancelledError  # another micro-batch has failed

    def _assign_cpus(self) -> None:
        while self._idle and self._ready and not self._abandoned:
            self._idle -= 1
            self._sleep[self._ready.pop()].release()

    def _synchronise(self) -> None:
        """Once all wait, set the statistics of the first micro-batch's norm; mark those ready."""
        if not self._waiting or len(self._waiting) < self._unfinished:
            return
        norm, _ = self._waiting[min(self._waiting)]
        here = [n for n, (place, _) in sorted(self._waiting.items()) if place is norm]
        batch = merged([self._waiting.pop(n)[1] for n in here])
        self._sums[norm].append(batch)
        set_statistics(norm, batch.mean, batch.var)
        self._ready += here

    def _abandon(self) -> None:
        """End all waiting threads."""
        with self._state:
            self._abandoned = True
            for lock in self._sleep:
                if lock.locked():
                    lock.release()
