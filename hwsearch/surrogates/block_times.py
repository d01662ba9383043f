"""From measured subnets to the latency of every block spec.

Two ways. Where the device profiles, the times of a subnet's nodes are added up per block: nodes
are named by the block that they belong to, and what a runtime adds between blocks, such as a
change of layout, counts to the block before it. The profiler's own cost per node is taken out, and
the rest is scaled to the subnet's unprofiled latency. Where it does not, whole latencies
are split by a non-negative least squares that leans on multiply-accumulates.

Seen on a busy 2-core server with ONNX Runtime, on 100 unseen subnets each, from 48 subnets: the
sums of profiles were off by 2.2% on average for the bundled supernet (least squares: 3.5%,
multiply-accumulates alone: 4.5%) and by 1.7% for ofa-mbv3-w1.0 (1.8 to 2.5%, 1.7%), of which most
is the noise of measuring them. So profiles are used wherever there are any.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from hwsearch.blocks import BlockSpec
from hwsearch.surrogates.base import FloatArray
from hwsearch.tables import BlockLatency

_LEAST_MS: Final = 1e-6  # what a runtime has merged into another block still is a block
_STEADY: Final = 1.0  # how much it counts that the pace is 1, in relative errors of subnets
_MOST_PROFILING: Final = 0.3  # of a subnet's profiled time; more is the machine's doing
_MOST_OVERHEAD: Final = 0.2  # of the smallest subnet's latency
_LEANINGS: Final = (0.03, 0.1, 0.3)
_FOLDS: Final = 8
_FLOOR: Final = 0.002  # of a subnet's latency, for a block without multiply-accumulates
_OVERHEAD: Final = 0.05  # of a subnet's latency, until measured subnets say otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One measured subnet.

    Attributes:
        chain: Name and spec of its blocks, in order.
        latency_ms: Of the whole subnet, without profiling.
        blocks_ms: Name -> profiled time of the block's nodes; None where it was not profiled.
        nodes: Name -> number of these nodes.
    """

    chain: Sequence[tuple[str, BlockSpec]]
    latency_ms: float
    blocks_ms: Mapping[str, float] | None = None
    nodes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTimes:
    """What block specs cost.

    Attributes:
        blocks: Block spec -> latency.
        overhead_ms: What a run costs besides its blocks.
        method: ``"profile"`` or ``"least squares"``.
    """

    blocks: dict[BlockSpec, BlockLatency]
    overhead_ms: float
    method: str


def split_nodes(
    nodes_ms: Mapping[str, float], names: Iterable[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Add up the times of nodes per block.

    Args:
        nodes_ms: Time of every node by name, in the order of execution.
        names: Of the blocks. A node belongs to the block with the longest name that its own
            begins with, else to the block of the node before it; the first ones to the first
            block.

    Returns:
        Block -> time in ms, and block -> number of nodes; every block is there.
    """
    order = list(names)
    longest = sorted(order, key=len, reverse=True)
    times, counts = dict.fromkeys(order, 0.0), dict.fromkeys(order, 0)
    current = order[0]
    for node, spent_ms in nodes_ms.items():
        current = next((name for name in longest if node.startswith(name)), current)
        times[current] += spent_ms
        counts[current] += 1
    return times, counts


def from_profiles(observed: Sequence[Observed]) -> BlockTimes:
    """Derive block latencies from subnets that were profiled.

    Args:
        observed: At least one, all profiled. A spec's latency is the median over the blocks of
            that spec.
    """
    per_node_ms, overhead_ms = _profiling_costs(observed)
    seen: dict[BlockSpec, list[tuple[int, float]]] = {}
    for number, each in enumerate(observed):
        times, nodes = each.blocks_ms or {}, each.nodes or {}
        own = {name: max(times[name] - per_node_ms * nodes[name], 0.0) for name, _ in each.chain}
        scale = (each.latency_ms - overhead_ms) / max(sum(own.values()), _LEAST_MS)
        for name, spec in each.chain:
            seen.setdefault(spec, []).append((number, own[name] * scale))
    # Where one node was disturbed the others of its subnet get too small a share of the latency,
    # and so do the medians: the sums are brought back to what was measured.
    median_ms = {spec: float(np.median([ms for _, ms in values])) for spec, values in seen.items()}
    sums = [max(sum(median_ms[spec] for _, spec in each.chain), _LEAST_MS) for each in observed]
    latencies = np.array([each.latency_ms for each in observed])
    missing = float(np.median((latencies - overhead_ms) / sums))
    blocks = {spec: _block_latency(values, missing) for spec, values in seen.items()}
    return BlockTimes(blocks=blocks, overhead_ms=overhead_ms, method="profile")


def from_subnets(observed: Sequence[Observed], macs: Mapping[BlockSpec, int]) -> BlockTimes:
    """Derive block latencies from whole subnets alone.

    Args:
        observed: At least one.
        macs: Multiply-accumulates of every spec in them: latencies lean towards being
            proportional to these, so much as predicts left-out subnets best.
    """
    specs = list(dict.fromkeys(spec for each in observed for _, spec in each.chain))
    place = {spec: column for column, spec in enumerate(specs)}
    counts = np.zeros((len(observed), len(specs) + 1))
    counts[:, -1] = 1.0
    for row, each in enumerate(observed):
        for _, spec in each.chain:
            counts[row, place[spec]] += 1.0
    latency = np.array([each.latency_ms for each in observed])
    expected = _expected(counts, latency, np.array([macs[spec] for spec in specs]))
    rows = counts * expected / latency[:, np.newaxis]
    solution = _solved(rows, min(_LEANINGS, key=lambda leaning: _left_out_error(rows, leaning)))
    latencies = np.maximum(solution * expected, _LEAST_MS)
    blocks = {
        spec: BlockLatency(
            latency_ms=float(latencies[column]), count=int((counts[:, column] > 0).sum())
        )
        for spec, column in place.items()
    }
    return BlockTimes(blocks=blocks, overhead_ms=float(latencies[-1]), method="least squares")


def _profiling_costs(observed: Sequence[Observed]) -> tuple[float, float]:
    """What the profiler adds to every node, and what a run costs besides its nodes, in ms.

    A profiled total is ``pace x (latency - overhead) + cost x nodes``: the machine need not have
    had the same pace in both, though it is not likely to differ much.
    """
    latency = np.array([each.latency_ms for each in observed])
    total = np.array([sum((each.blocks_ms or {}).values()) for each in observed])
    nodes = np.array([sum((each.nodes or {}).values()) for each in observed])
    columns = np.stack([np.ones(len(observed)), nodes / latency, -1.0 / latency], axis=1)
    pace, cost, overhead = few_non_negative(
        np.concatenate([columns, [[_STEADY, 0.0, 0.0]]]), np.append(total / latency, _STEADY)
    )
    most_cost = _MOST_PROFILING * float((total / nodes).min())
    most_overhead = _MOST_OVERHEAD * float(latency.min())
    return min(float(cost), most_cost), min(float(overhead / max(pace, 0.1)), most_overhead)


def _block_latency(values: Sequence[tuple[int, float]], factor: float) -> BlockLatency:
    times = factor * np.array([time for _, time in values])
    return BlockLatency(
        latency_ms=max(float(np.median(times)), _LEAST_MS),
        count=len({number for number, _ in values}),
        spread_ms=float(times.std(ddof=1)) if len(times) > 1 else 0.0,
    )


def _expected(counts: FloatArray, latency: FloatArray, macs: FloatArray) -> FloatArray:
    """Latencies (n_specs + 1,) in proportion to the work, with a floor; the last is overhead."""
    work = np.append(macs / max(macs.max(), 1), 0.0) + _FLOOR
    work[-1] = 0.0
    per_work = np.median(latency * (1.0 - _OVERHEAD) / (counts @ work))
    expected: FloatArray = work * per_work
    expected[-1] = _OVERHEAD * np.median(latency)
    return expected


def few_non_negative(columns: FloatArray, target: FloatArray) -> FloatArray:
    """Solve a non-negative least squares of few columns, without scipy: kits have none.

    The best solution is the plain one of the columns that it does not leave at 0, so that of all
    choices of columns with a non-negative plain solution the one of least error is it.

    Args:
        columns: (n, n_columns).
        target: (n,).

    Returns:
        (n_columns,), not negative.
    """
    best, least = np.zeros(columns.shape[1]), float(target @ target)
    for chosen in product([False, True], repeat=columns.shape[1]):
        solution = np.zeros(columns.shape[1])
        kept = np.array(chosen)
        solution[kept] = np.linalg.lstsq(columns[:, kept], target, rcond=None)[0]
        error = float(np.sum((columns @ solution - target) ** 2))
        if (solution >= 0).all() and error < least:
            best, least = solution, error
    return best


def _solved(rows: FloatArray, leaning: float) -> FloatArray:
    """Multiples of what is expected, for rows of shares that should add up to 1."""
    from scipy.optimize import nnls

    n_columns = rows.shape[1]
    solution, _ = nnls(
        np.concatenate([rows, leaning * np.eye(n_columns)]),
        np.concatenate([np.ones(len(rows)), np.full(n_columns, leaning)]),
    )
    found: FloatArray = solution
    return found


def _left_out_error(rows: FloatArray, leaning: float) -> float:
    n_folds = min(_FOLDS, len(rows))
    if n_folds < 2:
        return -leaning  # nothing to compare: what leans most
    fold = np.arange(len(rows)) % n_folds
    errors = [
        np.abs(rows[fold == number] @ _solved(rows[fold != number], leaning) - 1.0)
        for number in range(n_folds)
    ]
    return float(np.concatenate(errors).mean())
