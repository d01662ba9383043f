"""Recalibration: batch statistics of subnets, whose common prefixes are run once."""

import ctypes
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.accuracy.sync_batch_norm import (
    ChannelSums,
    MicroBatch,
    SynchronisedRun,
    batch_statistics,
    micro_batch_threads,
    micro_batches,
    set_statistics,
)
from hwsearch.blocks import Block
from hwsearch.errors import EvaluationError
from hwsearch.machine import available_memory_bytes
from hwsearch.prefix_tree import PrefixNode
from hwsearch.space import Architecture

# Of the available memory: for activations that several subnets share, and for kept statistics.
SHARE_OF_MEMORY, SHARE_OF_MEMORY_KEPT = 0.125, 0.05
# Parameters of mallopt(3): free memory at the end of the heap that is returned to the system, and
# the size from which memory is mapped apart from the heap and returned when freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL = 2**31 - 1
# Upper ends of glibc's own adjustment, which setting either turns off.
_TRIM, _MMAP = 64 << 20, 32 << 20

Norms = tuple[type[nn.Module], ...]
Inputs = Mapping[str, NDArray[Any]]
Source = Callable[[], list[MicroBatch]]


def recalibrate(subnet: nn.Module, norms: Norms, batches: Iterable[Inputs]) -> nn.Module:
    """Set the statistics of a subnet's ``norms`` (types) in place, and return it in eval mode.

    Every norm's mean and variance become the means of the batches' means and biased variances,
    weighted by batch size; in a batch, each norm normalises by that batch's own (Cai et al.,
    "Once-for-All", ICLR 2020, appendix B). A batch has inputs by name, in ``forward``'s order.

    Raises:
        EvaluationError: There were no batches, or a statistic is not finite.
    """
    (result,) = recalibrate_together({subnet: None}, norms, batches)
    if isinstance(result, Exception):
        raise result
    return subnet


def recalibrate_together(
    chains: Mapping[nn.Module, Sequence[Block] | None],
    norms: Norms,
    batches: Iterable[Inputs],
    budget: int | None = None,
) -> list[float | Exception]:
    """Set the batch statistics of subnets in place: the same as `recalibrate` sets one by one.

    Subnets take the same inputs, and come back in eval mode. The blocks of a subnet are None
    unless it is a chain of them with one input. Chains with equal first blocks of equal weights
    have the same activations and batch statistics up to there, which are computed once. Each batch
    goes through all subnets before the next one, depth first, so that activations are kept only at
    branches with paths left to run.

    Up to ``budget`` bytes are kept beyond those of the block that runs, and others computed again;
    None is an eighth of the memory that is available now.

    Returns:
        For each subnet its time in seconds, a block's divided among the subnets that share it; or
        the error of its blocks or its statistics.
    """
    tree = _Node()
    paths = [tree.insert(_steps(subnet, blocks, norms)) for subnet, blocks in chains.items()]
    limit = int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
    with freed_memory_kept(), micro_batch_threads() as pool:
        for batch in batches if tree.children else ():
            for root in tree.children.values():
                _walk(root, partial(_fed, batch), limit, pool)
    for node in tree.descendants():
        _finish(node, norms)
    return [_result(path) for path in paths]


@dataclass(eq=False)
class _BlockRun:
    """A block of a subnet. Of blocks with equal predecessors and weights the first one is run.

    ``sums`` are those of each batch at its norms; ``error`` is the reason why it cannot be run.
    """

    module: nn.Module
    sums: Mapping[nn.Module, list[ChannelSums]]
    seconds: float = 0.0
    error: Exception | None = None


_Node = PrefixNode[_BlockRun]


def _steps(
    subnet: nn.Module, blocks: Sequence[Block] | None, norms: Norms
) -> Iterator[tuple[object, _BlockRun]]:
    """Yield a key and a run for each block, for a whole subnet that is no chain, or nothing.

    A chain holds all norms of the subnet, each once.
    """
    subnet.eval()
    found = norms_of(subnet, norms)
    if not found:
        return
    modules = {block: subnet.get_submodule(block.name) for block in blocks or ()}
    held = [norm for module in modules.values() for norm in norms_of(module, norms)]
    if len(held) != len(found) or set(held) != set(found):
        yield object(), _BlockRun(subnet, {norm: [] for norm in found})
        return
    for block, module in modules.items():
        sums: dict[nn.Module, list[ChannelSums]] = {n: [] for n in norms_of(module, norms)}
        yield _identity(block, module, sums), _BlockRun(module, sums)


def norms_of(module: nn.Module, norms: Norms) -> list[nn.Module]:
    """Return the modules of these types in a module, in order."""
    return [each for each in module.modules() if isinstance(each, norms)]


def _identity(block: Block, module: nn.Module, norms: Iterable[nn.Module]) -> str:
    """Return a digest of a block's structure, settings and weights without batch statistics."""
    digest = hashlib.sha256(f"{block.name} {block.spec} {module!r}".encode())
    statistics = {id(buffer) for norm in norms for buffer in norm.buffers()}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) not in statistics:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fed(batch: Inputs) -> list[MicroBatch]:
    """Return the arguments of ``forward`` for a batch, images channels-last."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in batch.values()]
    fast = torch.channels_last
    return micro_batches([t.to(memory_format=fast) if t.ndim == 4 else t for t in tensors])


def _walk(node: _Node, source: Source, spare: int, pool: Executor) -> None:
    """Run a node and all its descendants on one batch.

    ``source`` returns its input at each call; ``spare`` bytes of activations may still be kept.
    """
    first = node.items[0]
    if first.error is not None:
        return
    try:
        values = _output(first, source, first.sums, pool)
    except Exception as error:  # noqa: BLE001 - code of a plugin may raise any error
        first.error = error
        return
    if not node.children:
        return

    again = partial(_output, first, source, {norm: [] for norm in first.sums}, pool)
    size = sum(each.numel() * each.element_size() for (each,) in values)
    if len(node.children) > 1 and size <= spare:
        given, spare = _kept(values, again), spare - size
    else:
        given = _once(values, again)
    del values
    for child in node.children.values():
        _walk(child, given, spare, pool)


def _output(
    first: _BlockRun, source: Source, sums: Mapping[nn.Module, list[ChannelSums]], pool: Executor
) -> list[MicroBatch]:
    values, begin = source(), time.perf_counter()
    outputs = SynchronisedRun(first.module, values, sums).run(pool)
    first.seconds += time.perf_counter() - begin
    return [(output,) for output in outputs]


def _once(values: list[MicroBatch], otherwise: Source) -> Source:
    """Return the values at the first call, without holding them any longer, then ``otherwise``."""
    held = [values]
    del values
    return lambda: held.pop() if held else otherwise()


def _kept(values: list[MicroBatch], otherwise: Source) -> Source:
    """Return the values until they are modified in place, then ``otherwise``."""
    versions = [each._version for (each,) in values]
    return lambda: values if [each._version for (each,) in values] == versions else otherwise()


def _finish(node: _Node, norms: Norms) -> None:
    """Set the statistics in every subnet that has the node."""
    first = node.items[0]
    try:
        found = [batch_statistics(batches) for batches in first.sums.values()]
    except EvaluationError as error:
        first.error = first.error or error
        return
    for each in node.items:
        for norm, statistics in zip(norms_of(each.module, norms), found, strict=True):
            set_statistics(norm, *statistics)


def _result(path: Sequence[_Node]) -> float | Exception:
    for node in path:
        if node.items[0].error is not None:
            return node.items[0].error
    return sum(node.items[0].seconds / len(node.items) for node in path)


class StatisticsCache:
    """LRU cache of all norms' statistics by architecture; default: 1/20 of available memory."""

    def __init__(self, norms: Norms, budget: int | None = None) -> None:
        self._norms = norms
        self._budget = (
            int(SHARE_OF_MEMORY_KEPT * available_memory_bytes()) if budget is None else budget
        )
        self._used = 0
        self._kept: OrderedDict[Architecture, list[Tensor]] = OrderedDict()

    def keep(self, arch: Architecture, subnet: nn.Module) -> None:
        """Store the statistics of a recalibrated subnet."""
        self._forget(arch)
        self._kept[arch] = [
            torch.stack([norm.running_mean, norm.running_var])  # type: ignore[list-item]
            for norm in norms_of(subnet, self._norms)
        ]
        self._used += sum(each.nbytes for each in self._kept[arch])
        while self._used > self._budget:
            self._forget(next(iter(self._kept)))

    def restore(self, arch: Architecture, subnet: nn.Module) -> bool:
        """Set stored statistics in place, in eval mode; return whether they were stored."""
        known = self._kept.get(arch)
        if known is None:
            return False
        self._kept.move_to_end(arch)
        subnet.eval()
        for norm, statistics in zip(norms_of(subnet, self._norms), known, strict=True):
            set_statistics(norm, *statistics)
        return True

    def _forget(self, arch: Architecture) -> None:
        self._used -= sum(each.nbytes for each in self._kept.pop(arch, []))


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep freed memory until the end; elsewhere this does nothing.

    Every layer of a large batch allocates hundreds of megabytes. Page faults of memory that is
    returned to the system and allocated anew took more than half of a recalibration's time.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _ALL)
        libc.mallopt(_MMAP_THRESHOLD, _ALL)
    try:
        yield
    finally:
        with suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, _TRIM)
            libc.mallopt(_MMAP_THRESHOLD, _MMAP)
            libc.malloc_trim(0)
