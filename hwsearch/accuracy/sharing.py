"""Recalibrating several subnets together: what they begin with alike is run once."""

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
    """A subnet and the chain of blocks that it is."""

    subnet: nn.Module
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated:
    """What it took to recalibrate one of several subnets.

    Attributes:
        cost_s: Its share of the time, in seconds: that of a block is divided among those who
            have it.
        share: Its share of the multiply-accumulates that it would have taken by itself.
    """

    cost_s: float
    share: float


@dataclass(eq=False)
class _Node:
    """A block behind the same blocks with the same weights, in all subnets that have it.

    Attributes:
        block: Its place and costs.
        modules: The block's module in each subnet; the first one is run.
        averages: Of the norms of that one.
        children: What follows, by what it is.
        seconds: That running it took.
        error: Why it cannot be run.
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
    """Return the blocks that a subnet can be recalibrated by; None where it has to run whole.

    They hold all of its norms, each in one place.
    """
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
    """Set the batch statistics of subnets, in place: the same as `recalibrate` sets one by one.

    Subnets that begin with equal blocks of equal weights have the same activations and the same
    batch statistics up to there, which are computed once. Each batch goes through all subnets
    before the next one does, depth first, so that activations are kept only where paths that are
    still to be gone branch off.

    Args:
        chains: Subnets that take the same inputs and are chains; see `chain_of`. They come back
            in eval mode.
        norms: Types of the modules to set.
        batches: Inputs by name, one of them.
        budget: Bytes of kept activations, beyond those of the block that runs; where they do not
            fit, what leads to them is run once more. None takes an eighth of the memory that is
            available now.

    Returns:
        For each subnet what it took, or what its blocks or its statistics failed by.
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
    """Find or make the nodes that a subnet leads through."""
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
    """Say all that decides what a block makes of its input: structure, settings and weights."""
    digest = hashlib.sha256(f"{block.name} {block.spec} {module!r}".encode())
    statistics = {id(buffer) for norm in norms_of(module, norms) for buffer in norm.buffers()}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) not in statistics:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _walk(node: _Node, source: Source, spare: int, pool: Executor) -> None:
    """Run a node and all that follows it on one batch.

    Args:
        node: The first one.
        source: Gives its input, as often as it is asked for.
        spare: Bytes of activations that may still be kept.
        pool: See `micro_batch_threads`.
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
    """Give values the first time, without holding them any longer, then what comes otherwise."""
    held = [values]
    del values
    return lambda: held.pop() if held or otherwise is None else otherwise()


def _kept(values: list[MicroBatch], otherwise: Source) -> Source:
    """Give values as long as nobody has written into them, then what comes otherwise."""
    versions = [each._version for (each,) in values]
    return lambda: values if [each._version for (each,) in values] == versions else otherwise()


def _rerun(node: _Node, source: Source, pool: Executor) -> Source:
    """Return a function that gives a node's output by running it once more, unrecorded."""

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
    except Exception as error:  # noqa: BLE001 - a family is a stranger's code
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
