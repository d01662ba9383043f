"""Recalibration of several subnets together: their common prefixes are run once."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from hwsearch.accuracy.channel_statistics import BatchAverage, set_statistics
from hwsearch.accuracy.recalibrate import freed_memory_kept, norms_of, tensors_of
from hwsearch.accuracy.sync_batch_norm import (
    MicroBatch,
    micro_batch_threads,
    micro_batches,
    run_synchronised,
)
from hwsearch.blocks import Block
from hwsearch.errors import EvaluationError
from hwsearch.machine import available_memory_bytes
from hwsearch.prefix_tree import PrefixNode

Source = Callable[[], list[MicroBatch]]
SHARE_OF_MEMORY = 0.125


@dataclass(frozen=True, slots=True, kw_only=True)
class Chained:
    """A subnet that is a chain of blocks."""

    subnet: nn.Module
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated:
    """Costs of recalibrating one of several subnets.

    ``cost_s`` is its time in seconds, a block's divided among the subnets that share it; ``share``
    its multiply-accumulates relative to those of a recalibration by itself.
    """

    cost_s: float
    share: float


@dataclass(eq=False)
class _BlockRun:
    """A block of a subnet. Of blocks with equal predecessors and weights the first one is run.

    ``averages`` are of its norms; ``error`` is the reason why it cannot be run.
    """

    block: Block
    module: nn.Module
    averages: dict[nn.Module, BatchAverage]
    seconds: float = 0.0
    error: Exception | None = None


_Node = PrefixNode[_BlockRun]


def chain_of(
    subnet: nn.Module, blocks: Sequence[Block] | None, norms: tuple[type[nn.Module], ...]
) -> Sequence[Block] | None:
    """Return the blocks if they hold all norms of a subnet, each once; else None."""
    found = norms_of(subnet, norms)
    if not blocks or not found:
        return None
    held = [n for block in blocks for n in norms_of(subnet.get_submodule(block.name), norms)]
    return blocks if len(held) == len(found) and set(held) == set(found) else None


def recalibrate_together(
    chains: Sequence[Chained],
    norms: tuple[type[nn.Module], ...],
    batches: Iterable[dict[str, NDArray[Any]]],
    budget: int | None = None,
) -> list[Recalibrated | Exception]:
    """Set the batch statistics of subnets in place: the same as `recalibrate` sets one by one.

    Subnets are chains (see `chain_of`) with the same inputs, and come back in eval mode. Those
    with equal first blocks of equal weights have the same activations and batch statistics up to
    there, which are computed once. Each batch, of one input, goes through all subnets before the
    next one, depth first, so that activations are kept only at branches with paths left to run.

    Up to ``budget`` bytes are kept beyond those of the block that runs, and others computed again;
    None is an eighth of the memory that is available now. The result has for each subnet its
    costs, or the error of its blocks or its statistics.
    """
    for chain in chains:
        chain.subnet.eval()
    tree = _Node()
    paths = [tree.insert(_keyed_blocks(chain, norms)) for chain in chains]
    limit = int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
    with freed_memory_kept(), micro_batch_threads() as pool:
        for batch in batches:
            for root in tree.children.values():
                _walk(root, partial(_first, batch), limit, pool)
    for node in tree.descendants():
        _finish(node, norms)
    return [_result(path) for path in paths]


def _first(batch: dict[str, NDArray[Any]]) -> list[MicroBatch]:
    return micro_batches(tensors_of(batch)[:1])


def _keyed_blocks(
    chain: Chained, norms: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, _BlockRun]]:
    for block in chain.blocks:
        module = chain.subnet.get_submodule(block.name)
        averages = {norm: BatchAverage() for norm in norms_of(module, norms)}
        yield _identity(block, module, norms), _BlockRun(block, module, averages)


def _identity(block: Block, module: nn.Module, norms: tuple[type[nn.Module], ...]) -> str:
    """Return a digest of a block's structure, settings and weights without batch statistics."""
    digest = hashlib.sha256(f"{block.name} {block.spec} {module!r}".encode())
    statistics = {id(buffer) for norm in norms_of(module, norms) for buffer in norm.buffers()}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) not in statistics:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _walk(node: _Node, source: Source, spare: int, pool: Executor) -> None:
    """Run a node and all its descendants on one batch.

    ``source`` returns its input at each call; ``spare`` bytes of activations may still be kept.
    """
    values = _run(node.items[0], source, pool)
    while values is not None and len(node.children) == 1:
        source, given = _rerun(node.items[0], source, pool), _once(values)
        (node,) = node.children.values()
        del values
        values = _run(node.items[0], given, pool)
    if values is None or not node.children:
        return
    size = sum(each.numel() * each.element_size() for (each,) in values)
    again = _rerun(node.items[0], source, pool)
    if size <= spare:
        again, spare = _kept(values, again), spare - size
    else:
        again = _once(values, again)
    del values
    for child in node.children.values():
        _walk(child, again, spare, pool)


def _once(values: list[MicroBatch], otherwise: Source | None = None) -> Source:
    """Return the values at the first call, without holding them any longer, then ``otherwise``."""
    held = [values]
    del values
    return lambda: held.pop() if held or otherwise is None else otherwise()


def _kept(values: list[MicroBatch], otherwise: Source) -> Source:
    """Return the values until they are modified in place, then ``otherwise``."""
    versions = [each._version for (each,) in values]
    return lambda: values if [each._version for (each,) in values] == versions else otherwise()


def _rerun(first: _BlockRun, source: Source, pool: Executor) -> Source:
    """Return a function that computes a block's output again, without adding to its averages."""
    return lambda: _output(
        first, source(), {norm: BatchAverage() for norm in first.averages}, pool
    )


def _output(
    first: _BlockRun,
    values: list[MicroBatch],
    averages: dict[nn.Module, BatchAverage],
    pool: Executor,
) -> list[MicroBatch]:
    begin = time.perf_counter()
    outputs = run_synchronised(first.module, values, averages, pool)
    first.seconds += time.perf_counter() - begin
    return [(output,) for output in outputs]


def _run(first: _BlockRun, source: Source, pool: Executor) -> list[MicroBatch] | None:
    """Return a block's output, or None where it has failed."""
    if first.error is None:
        try:
            return _output(first, source(), first.averages, pool)
        except Exception as error:  # noqa: BLE001 - code of a plugin may raise any error
            first.error = error
    return None


def _finish(node: _Node, norms: tuple[type[nn.Module], ...]) -> None:
    """Set the statistics in every subnet that has the node."""
    first = node.items[0]
    try:
        found = [averages.statistics() for averages in first.averages.values()]
    except EvaluationError as error:
        first.error = first.error or error
        return
    for each in node.items:
        for norm, (mean, var) in zip(norms_of(each.module, norms), found, strict=True):
            set_statistics(norm, mean, var)


def _result(path: Sequence[_Node]) -> Recalibrated | Exception:
    runs = [(node.items[0], len(node.items)) for node in path]
    for first, _ in runs:
        if first.error is not None:
            return first.error
    macs = sum(first.block.macs for first, _ in runs)
    shared = sum(first.block.macs / n for first, n in runs)
    return Recalibrated(
        cost_s=sum(first.seconds / n for first, n in runs),
        share=shared / macs if macs else 1.0,
    )
