"""Latencies of block specs, estimated from measured subnets.

From profiles: the times of a subnet's nodes are summed per block. Nodes are named by their block;
nodes that a runtime adds between blocks, such as a change of layout, count to the block before.
The profiler's cost per node is subtracted, as estimated by cross-validation over subnets, and the
rest is scaled to the subnet's unprofiled latency. Without profiles: non-negative least squares on
whole latencies, regularised towards multiply-accumulates.

Profiles are preferred: on a 2-core server with ONNX Runtime, from 48 subnets, sums of profiles had
a mean error of 2.2% on 100 unseen subnets of the bundled supernet (least squares 3.5%, MACs alone
4.5%), and of 1.7% for ofa-mbv3-w1.0 (1.8 to 2.5%, 1.7%). They do not say what a boundary between
blocks of unlike precision costs: besides the nodes that convert, fusions of both blocks are lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from hwsearch.architectures import PRECISION
from hwsearch.blocks import BlockSpec
from hwsearch.precision import BOUNDARY
from hwsearch.prediction.base import BoolArray, FloatArray, IntArray
from hwsearch.quantization import DYNAMIC, INT8
from hwsearch.tables import BlockLatency

_LEAST_MS: Final = 1e-6  # of blocks that a runtime has merged into another one
# Candidates: the profiler's cost as shares of profiled time, the overhead as shares of a small
# subnet's latency. Totals do not determine them where the machine's speed changes.
_PROFILING: Final = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
_OVERHEADS: Final = np.array([0.0, 0.05, 0.1, 0.2])
_RIDGES: Final = (0.01, 0.03, 0.1, 0.3)
_FOLDS: Final = 8
_FLOOR: Final = 0.002  # of a subnet's latency, for a block without multiply-accumulates
# Until measured subnets say otherwise: a multiply-accumulate of int8 takes this share of the time
# in float32, and converting an activation as long as so many.
_INT8_SHARE: Final = 0.5
_CONVERSION: Final = 100
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
    """Latencies of block specs, by ``"profile"`` or ``"least squares"``, and of the overhead."""

    blocks: dict[BlockSpec, BlockLatency]
    overhead_ms: float
    method: str


def split_nodes(
    nodes_ms: Mapping[str, float], names: Iterable[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return block -> time in ms, and block -> number of nodes, for node times in execution order.

    A node belongs to the block with the longest name that its own begins with, else to the block
    of the node before it; the first ones to the first block. Every block is in the results.
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
    """Derive block latencies from profiled subnets: the median over the blocks of each spec."""
    found = _Occurrences.of(observed)
    totals_ms = np.bincount(found.subnet, found.profiled_ms)
    costs = _PROFILING * float((totals_ms / np.bincount(found.subnet, found.nodes)).min())
    overheads = _OVERHEADS * float(found.latency_ms.min())
    pairs = [(cost, overhead) for cost in costs.tolist() for overhead in overheads.tolist()]
    cost_ms, overhead_ms = min(pairs, key=lambda pair: found.left_out_error(*pair))
    shares = found.shares_ms(cost_ms, overhead_ms)
    everything = np.ones(len(observed), dtype=np.bool_)
    median_ms, factor = found.medians_ms(shares, everything, overhead_ms)
    blocks = {}
    for number, spec in enumerate(found.specs):
        own = found.spec == number
        blocks[spec] = BlockLatency(
            latency_ms=max(float(median_ms[number]), _LEAST_MS),
            count=len(np.unique(found.subnet[own])),
            spread_ms=float(factor * shares[own].std(ddof=1)) if own.sum() > 1 else 0.0,
        )
    return BlockTimes(blocks=blocks, overhead_ms=overhead_ms, method="profile")


def from_subnets(observed: Sequence[Observed], macs: Mapping[BlockSpec, int]) -> BlockTimes:
    """Derive block latencies from the latencies of whole subnets, regularised towards ``macs``.

    The strength of it is the one that predicts left-out subnets best. What int8 saves, and what
    boundaries between blocks of unlike precision cost, is expected by their sizes, too.
    """
    specs = list(dict.fromkeys(spec for each in observed for _, spec in each.chain))
    place = {spec: column for column, spec in enumerate(specs)}
    counts = np.zeros((len(observed), len(specs) + 1))
    counts[:, -1] = 1.0
    for row, each in enumerate(observed):
        for _, spec in each.chain:
            counts[row, place[spec]] += 1.0
    latency = np.array([each.latency_ms for each in observed])
    work = np.array([expected_work(spec, macs[spec]) for spec in specs])
    expected = _expected(counts, latency, work)
    rows = counts * expected / latency[:, np.newaxis]
    solution = _solved(rows, min(_RIDGES, key=lambda ridge: _left_out_error(rows, ridge)))
    latencies = np.maximum(solution * expected, _LEAST_MS)
    blocks = {
        spec: BlockLatency(
            latency_ms=float(latencies[column]), count=int((counts[:, column] > 0).sum())
        )
        for spec, column in place.items()
    }
    return BlockTimes(blocks=blocks, overhead_ms=float(latencies[-1]), method="least squares")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occurrences:
    """Every block of every profiled subnet: ``subnet`` and ``spec`` are their numbers, (n,)."""

    specs: list[BlockSpec]
    subnet: IntArray
    spec: IntArray
    profiled_ms: FloatArray
    nodes: FloatArray
    latency_ms: FloatArray

    @classmethod
    def of(cls, observed: Sequence[Observed]) -> "_Occurrences":
        specs = list(dict.fromkeys(spec for each in observed for _, spec in each.chain))
        place = {spec: number for number, spec in enumerate(specs)}
        rows = [
            (subnet, place[spec], (each.blocks_ms or {})[name], (each.nodes or {})[name])
            for subnet, each in enumerate(observed)
            for name, spec in each.chain
        ]
        subnet, spec, profiled_ms, nodes = (np.array(column) for column in zip(*rows, strict=True))
        return cls(
            specs=specs,
            subnet=subnet,
            spec=spec,
            profiled_ms=profiled_ms.astype(np.float64),
            nodes=nodes.astype(np.float64),
            latency_ms=np.array([each.latency_ms for each in observed]),
        )

    def shares_ms(self, cost_ms: float, overhead_ms: float) -> FloatArray:
        """Return each block's share of its subnet's latency: (n,); ``cost_ms`` is per node."""
        own = np.maximum(self.profiled_ms - cost_ms * self.nodes, 0.0)
        scale = (self.latency_ms - overhead_ms) / np.maximum(
            np.bincount(self.subnet, own), _LEAST_MS
        )
        shares: FloatArray = own * scale[self.subnet]
        return shares

    def medians_ms(
        self, shares_ms: FloatArray, kept: BoolArray, overhead_ms: float
    ) -> tuple[FloatArray, float]:
        """Return latencies (n_specs,) from the kept subnets, or from all where none has the spec.

        A disturbed node leaves too small a share to the rest of its subnet, so the sums are
        scaled to the measured latencies by a factor, which is returned, too.
        """
        medians = np.empty(len(self.specs))
        for number in range(len(self.specs)):
            own = self.spec == number
            among = own & kept[self.subnet]
            medians[number] = np.median(shares_ms[among if among.any() else own])
        sums = np.maximum(np.bincount(self.subnet, medians[self.spec]), _LEAST_MS)
        factor = float(np.median(((self.latency_ms - overhead_ms) / sums)[kept]))
        return factor * medians, factor

    def left_out_error(self, cost_ms: float, overhead_ms: float) -> float:
        """Return the mean relative error of the sums on left-out subnets."""
        shares = self.shares_ms(cost_ms, overhead_ms)
        errors = []
        for left_out in _folds(len(self.latency_ms)):
            medians, _ = self.medians_ms(shares, ~left_out, overhead_ms)
            sums = overhead_ms + np.bincount(self.subnet, medians[self.spec])
            errors.append(np.abs(sums / self.latency_ms - 1.0)[left_out])
        return float(np.concatenate(errors).mean()) if errors else 0.0


def _folds(n: int) -> list[BoolArray]:
    """Return masks (n,) of the subnets to leave out in turn; none for a single subnet."""
    n_folds = min(_FOLDS, n)
    return [np.arange(n) % n_folds == number for number in range(n_folds)] if n > 1 else []


def expected_work(spec: BlockSpec, macs: int) -> float:
    """Return the multiply-accumulates of float32 that are expected to take as long as a block."""
    if spec.kind == BOUNDARY:
        return float(_CONVERSION * prod(spec.input_shape))
    share = _INT8_SHARE if dict(spec.hyperparameters).get(PRECISION) in (INT8, DYNAMIC) else 1.0
    return share * macs


def _expected(counts: FloatArray, latency: FloatArray, work: FloatArray) -> FloatArray:
    """Return latencies (n_specs + 1,) in proportion to work, with a floor; overhead is last."""
    work = np.append(work / max(work.max(), 1), 0.0) + _FLOOR
    work[-1] = 0.0
    per_work = np.median(latency * (1.0 - _OVERHEAD) / (counts @ work))
    expected: FloatArray = work * per_work
    expected[-1] = _OVERHEAD * np.median(latency)
    return expected


def _solved(rows: FloatArray, ridge: float) -> FloatArray:
    """Return multiples of the expected latencies, for rows of shares that should sum to 1."""
    from scipy.optimize import nnls  # a kit, which has profiles, has no scipy

    n_columns = rows.shape[1]
    solution, _ = nnls(
        np.concatenate([rows, ridge * np.eye(n_columns)]),
        np.concatenate([np.ones(len(rows)), np.full(n_columns, ridge)]),
    )
    found: FloatArray = solution
    return found


def _left_out_error(rows: FloatArray, ridge: float) -> float:
    errors = [
        np.abs(rows[left_out] @ _solved(rows[~left_out], ridge) - 1.0)
        for left_out in _folds(len(rows))
    ]
    return float(np.concatenate(errors).mean()) if errors else -ridge
