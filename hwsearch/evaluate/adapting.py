"""Running a module on a batch whose own statistics each norm normalises by, on all CPUs."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.devices.fingerprint import usable_cpus
from hwsearch.errors import EvaluationError
from hwsearch.evaluate.moments import Sums, joined, sums_of

# Samples that pass from one norm to the next before others do: for fewer, torch takes a slower
# convolution. They decide the last bits of the statistics, and so are the same on every machine.
PART = 16


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


def run_adapting(
    module: nn.Module, inputs: Sequence[Tensor], moments: Mapping[nn.Module, Moments]
) -> Any:
    """Run a module in eval mode on a batch whose own statistics each norm normalises by.

    The batch goes through in parts, each by one thread, as many at a time as there are CPUs. At
    a norm all parts wait for the last one, and go on when the statistics of the whole batch are
    known. So what a part goes through between two norms stays in the cache, no layer waits for
    the slowest CPU, and the number of CPUs changes no bit.

    Args:
        module: The module; samples meet in its norms only.
        inputs: What ``forward`` takes, (n, ...) each.
        moments: Receive the statistics, for each norm.

    Returns:
        Its output; a list of the parts' outputs where those are no tensors.
    """
    parts = list(zip(*(torch.split(each, PART) for each in inputs), strict=True))
    passage = _Passage(module, parts, moments)
    handles = [norm.register_forward_pre_hook(passage.meet) for norm in moments]
    try:
        outputs = passage.run()
    finally:
        for handle in handles:
            handle.remove()
    if not all(isinstance(output, Tensor) for output in outputs):
        return outputs
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def set_statistics(norm: nn.Module, mean: Tensor, var: Tensor) -> None:
    """Let a norm normalise by these."""
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(var)  # type: ignore[operator]


class _AbandonedError(Exception):
    """Another part has failed."""


class _Passage:
    """The parts of a batch on their way through a module."""

    def __init__(
        self,
        module: nn.Module,
        parts: Sequence[tuple[Tensor, ...]],
        moments: Mapping[nn.Module, Moments],
    ) -> None:
        self._module, self._parts, self._moments = module, parts, moments
        self._cpus = threading.Semaphore(len(usable_cpus()))
        self._change = threading.Condition()
        self._under_way, self._abandoned = len(parts), False
        # Number of the part -> the norm that it has come to, and what it brings.
        self._waiting: dict[int, tuple[nn.Module, Sums]] = {}
        self._thread = threading.local()

    def run(self) -> list[Any]:
        """Return the output of each part; raise what the first of those that failed has raised."""
        with _one_thread(), ThreadPoolExecutor(len(self._parts)) as pool:
            futures = [pool.submit(self._run, number) for number in range(len(self._parts))]
            try:
                wait(futures)
            finally:
                self._abandon()
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None and not isinstance(error, _AbandonedError):
                raise error
        return [future.result() for future in futures]

    def _run(self, number: int) -> Any:
        self._thread.number = number
        try:
            with self._cpus, torch.no_grad():
                output = self._module(*self._parts[number])
        except BaseException:
            self._abandon()
            raise
        with self._change:
            self._under_way -= 1
            self._go_on()
        return output

    def meet(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Let a part wait at a norm until that knows what to normalise by; a hook of the norm."""
        number, sums = self._thread.number, sums_of(args[0])
        self._cpus.release()
        try:
            with self._change:
                self._waiting[number] = norm, sums
                self._go_on()
                self._change.wait_for(lambda: self._abandoned or number not in self._waiting)
        finally:
            self._cpus.acquire()
        if self._abandoned:
            raise _AbandonedError

    def _go_on(self) -> None:
        """Once all have come to a norm, set the first one's, and let go on who waits there."""
        if not self._waiting or len(self._waiting) < self._under_way:
            return
        norm, _ = self._waiting[min(self._waiting)]
        together = [n for n, (place, _) in sorted(self._waiting.items()) if place is norm]
        batch = joined([self._waiting.pop(n)[1] for n in together])
        self._moments[norm].add(batch)
        set_statistics(norm, batch.mean, batch.var)
        self._change.notify_all()

    def _abandon(self) -> None:
        with self._change:
            self._abandoned = True
            self._change.notify_all()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch take one thread for each that calls it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
