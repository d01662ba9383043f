"""Recalibration of several subnets together: their common prefixes are run once."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
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
class _Node:
    """A block with equal predecessors and weights in several subnets; ``children`` come next.

    ``modules`` are the block's in each subnet. The first one is run, and ``averages`` are of its
    norms. ``error`` is the reason why it cannot be run.
    """

    block: Block
    modules: list[nn.Module]
    averages: dict[nn.Module, BatchAverage]
    children: "dict[str, _Node]" = field(default_factory=dict)
    seconds: float = 0.0
    error: Exception | None = None


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
    roots: dict[str, _Node] = {}
    paths = [list(_path(roots, chain, norms)) for chain in chains]
    limit = int(SHARE_OF_MEMORY * available_memory_bytes()) if budget is None else budget
    with freed_memory_kept(), micro_batch_threads() as pool:
        for batch in batches:
            for root in roots.values():
                _walk(root, partial(_first, batch), limit, pool)
    for node in _nodes(roots):
        _finish(node, norms)
    return [_result(path) for path in paths]


def _first(batch: dict[str, NDArray[Any]]) -> list[MicroBatch]:
    return micro_batches(tensors_of(batch)[:1])


def _path(
    nodes: dict[str, _Node], chain: Chained, norms: tuple[type[nn.Module], ...]
) -> Iterator[_Node]:
    """Yield the nodes of a subnet's blocks; add those that are missing."""
    for block in chain.blocks:
        module = chain.subnet.get_submodule(block.name)
        key = _identity(block, module, norms)
        if key not in nodes:
            nodes[key] = _Node(
                block, [], {norm: BatchAverage() for norm in norms_of(module, norms)}
            )
        node = nodes[key]
        node.modules.append(module)
        yield node
        nodes = node.children


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
    values = _run(node, source, pool)
    while values is not None and len(node.children) == 1:
        source, given = _rerun(node, source, pool), _once(values)
        (node,) = node.children.values()
        del values
        values = _run(node, given, pool)
    if values is None or not node.children:
        return
    size = sum(each.numel() * each.element_size() for (each,) in values)
    again = _rerun(node, source, pool)
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


def _rerun(node: _Node, source: Source, pool: Executor) -> Source:
    """Return a function that computes a node's output again, without adding to its averages."""

    def run() -> list[MicroBatch]:
        values = source()
        begin = time.perf_counter()
        averages = {norm: BatchAverage() for norm in node.averages}
        output = _through(node, values, averages, pool)
        node.seconds += time.perf_counter() - begin
        return output

    return run


def _through(
    node: _Node, values: list[MicroBatch], averages: dict[nn.Module, BatchAverage], pool: Executor
) -> list[MicroBatch]:
    return [(output,) for output in run_synchronised(node.modules[0], values, averages, pool)]


def _run(node: _Node, source: Source, pool: Executor) -> list[MicroBatch] | None:
    """Return a node's output, or None where it has failed."""
    if node.error is not None:
        return None
    try:
        values = source()
        begin = time.perf_counter()
        output = _through(node, values, node.averages, pool)
    except Exception as error:  # noqa: BLE001 - code of a plugin may raise any error
        node.error = error
        return None
    node.seconds += time.perf_counter() - begin
    return output


def _nodes(nodes: dict[str, _Node]) -> Iterator[_Node]:
    for node in nodes.values():
        yield node
        yield from _nodes(node.children)


def _finish(node: _Node, norms: tuple[type[nn.Module], ...]) -> None:
    """Set the statistics in every subnet that has the node."""
    try:
        found = [averages.statistics() for averages in node.averages.values()]
    except EvaluationError as error:
        node.error = node.error or error
        return
    for module in node.modules:
        for norm, (mean, var) in zip(norms_of(module, norms), found, strict=True):
            set_statistics(norm, mean, var)


def _result(path: Sequence[_Node]) -> Recalibrated | Exception:
    for node in path:
        if node.error is not None:
            return node.error
    macs = sum(node.block.macs for node in path)
    shared = sum(node.block.macs / len(node.modules) for node in path)
    return Recalibrated(
        cost_s=sum(node.seconds / len(node.modules) for node in path),
        share=shared / macs if macs else 1.0,
    )
