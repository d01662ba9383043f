"""Latency of architectures from latency tables, from measured subnets, or from both.

A table predicts an architecture by the sum of its blocks' latencies. The sums of several tables,
of other devices, are mixed with non-negative weights; without a table, numbers of
multiply-accumulates and of blocks take their place. Measured latencies are a multiple of the mix
whose logarithm is linear in the encoding (`LogRatioModel`). With few measured subnets the
correction is small; without any, a single table is used as it is.

Deviations are those of the model times a factor, by which they fit the errors on measured values
that are held out job by job (`hwsearch.prediction.calibration`): they include noise, differences
between jobs, and what the model cannot fit. The errors of subnets that the table was made from are
divided by 1 - leverage, since the table has them, and the others of their job, in its blocks.
"""

from collections.abc import Sequence
from copy import copy
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from hwsearch.chains import BlocksOf, ChainIndex
from hwsearch.errors import InputError
from hwsearch.lookup_tables import (
    LookupTable,
    LookupTableSum,
    block_tables,
    thermometer_tables,
)
from hwsearch.prediction.base import FloatArray, IntArray
from hwsearch.prediction.block_times import expected_work
from hwsearch.prediction.calibration import Calibration, calibrated, job_numbers
from hwsearch.prediction.log_ratio import LogRatioModel, check_positive, column_scale
from hwsearch.space import Architectures, SearchSpace
from hwsearch.tables import LatencyTable

_UNMEASURED: Final = 0.1  # relative deviation of a table's sums where nothing was measured
_RIDGE: Final = 0.02
_MOST_LEVERAGE: Final = 0.5
# Relative deviation between jobs hours apart, which the jobs of one table do not show.
_LATER: Final = 0.005


class LatencyPredictor:
    """Predicts latencies on one device.

    Args:
        space: The search space of all architectures.
        blocks: Returns an architecture's chain of blocks, or the index of all blocks; None where
            subnets are no chains.
        tables: Latency tables of this supernet: of the device, or of other ones.

    Raises:
        InputError: A table lacks a block spec of the space, or subnets are no chains.
    """

    def __init__(
        self,
        space: SearchSpace,
        blocks: BlocksOf | ChainIndex | None,
        tables: LatencyTable | Sequence[LatencyTable] = (),
    ) -> None:
        self.space = space
        given = [tables] if isinstance(tables, LatencyTable) else list(tables)
        if blocks is not None and not isinstance(blocks, ChainIndex):
            blocks = ChainIndex(space, blocks)
        self._costs, self._index = _costs(space, blocks, given), blocks
        self._tables, self._n_tables = given, len(given)
        self._covered = {
            frozenset(subnet.architecture.items())
            for table in given
            for subnet in table.subnets
            if subnet.purpose == "cover"
        }
        self._mix: FloatArray = np.ones(1)
        self._ratio: LogRatioModel | None = None
        self._calibration = Calibration()
        self._compiled: LookupTableSum | None = None

    def fit(self, archs: Architectures, latencies_ms: ArrayLike) -> Self:
        """Fit measured latencies of n whole subnets, (n,) ms; replace an earlier fit.

        They are in the order of measurement, so that neighbours are of one job.

        Raises:
            InputError: Architectures of another space, lengths that differ, or a latency that is
                not positive and finite.
        """
        latencies = check_positive("latency", latencies_ms, len(archs))
        self.space.check_own(archs)
        self._learn(archs, latencies)
        jobs = job_numbers(len(archs))
        if jobs.any():
            errors = self._held_out_errors(archs, latencies, jobs)
            self._calibration = calibrated(errors / (1.0 - self._leverage(archs, jobs)), jobs)
        return self

    def _learn(self, archs: Architectures, latencies: FloatArray) -> None:
        self._mix, self._compiled = _mixed(self._costs(archs), latencies), None
        self._ratio = LogRatioModel(self.space).fit(archs, latencies, self._base(archs))
        self._calibration = Calibration()

    def _held_out_errors(
        self, archs: Architectures, latencies: FloatArray, jobs: IntArray
    ) -> FloatArray:
        """Return log errors (n,) in predicted deviations, of each job by a fit to the others."""
        errors, other = np.empty(len(archs)), copy(self)
        for job in np.unique(jobs):
            out = jobs == job
            other._learn(archs[~out], latencies[~out])
            assert other._ratio is not None
            base = other._base(archs[out])
            logs = np.log(latencies[out] / other._ratio.predict_mean(archs[out], base))
            errors[out] = logs / other._ratio.log_deviation(archs[out], base)
        return errors

    def _leverage(self, archs: Architectures, jobs: IntArray) -> FloatArray:
        """Return the share of each sum, (n,), that the table has from subnets of the same job.

        It is 0 for subnets that the table was not made from, and with tables of other devices.
        """
        leverage = np.zeros(len(archs))
        covered = np.array([frozenset(a.mapping.items()) in self._covered for a in archs])
        if self._index is None or self._n_tables != 1:
            return leverage
        blocks = [self._tables[0].blocks[spec] for spec in self._index.specs]
        counts = self._index.counts(archs)
        sums = counts * np.array([block.latency_ms for block in blocks])
        for job in np.unique(jobs[covered]):
            own = covered & (jobs == job)
            share = (counts[own] > 0).sum(axis=0) / np.array([block.count for block in blocks])
            leverage[own] = sums[own] @ np.minimum(share, 1.0) / sums[own].sum(axis=1)
        return np.minimum(leverage, _MOST_LEVERAGE)

    def predict(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return medians and standard deviations of measured latencies, each (n,), in ms.

        Raises:
            InputError: Architectures of another space, or neither a fit nor a single table.
        """
        mean = self.predict_mean(archs)
        if self._ratio is None:
            return mean, mean * _UNMEASURED
        own = self._ratio.log_deviation(archs, self._base(archs)) * self._calibration.factor
        return mean, mean * np.hypot(own, _LATER)

    def predict_mean(self, archs: Architectures) -> FloatArray:
        """Return the medians alone, in a fraction of the time."""
        if self._ratio is None and self._n_tables != 1:
            raise InputError(
                f"with {self._n_tables or 'no'} latency tables, latencies are known only up to "
                "what is measured: call fit with measured subnets first"
            )
        if self._compiled is None:
            self._compiled = self._compile()
        base, correction = self._compiled(archs).T
        if np.isnan(base).any():
            key = archs[int(np.argmax(np.isnan(base)))].key
            raise InputError(f"architecture {key} has a block that was not found by trying")
        if self._ratio is not None:
            constant, slope = self._ratio.weights_[:2]
            centred = np.log(base) - self._ratio.centres_[1]
            base = base * np.exp(correction + constant + slope * centred)
        mean: FloatArray = base
        return mean

    def interval(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95% interval of measured latencies, each (n,), in ms."""
        mean, deviation = self.predict(archs)
        factor = np.exp(self._calibration.quantile_95() * deviation / mean)
        return mean / factor, mean * factor

    def _base(self, archs: Architectures) -> FloatArray:
        base: FloatArray = self._costs(archs) @ self._mix
        return base

    def _compile(self) -> LookupTableSum:
        """Return the mix, and the part of the correction that adds up over choices, as one sum."""
        tables = []
        for table in self._costs.tables:
            mixed = (table.values @ self._mix)[..., np.newaxis]
            tables.append(
                LookupTable(table.columns, np.concatenate([mixed, 0.0 * mixed], axis=-1))
            )
        if self._ratio is not None:
            weights = self._ratio.weights_[2:]
            shift = -float(self._ratio.centres_[2:] @ weights)
            scaled = np.column_stack([np.zeros(len(weights)), weights * column_scale(self.space)])
            tables += thermometer_tables(self.space, scaled)
            tables.append(LookupTable((), np.array([0.0, shift])))
        return LookupTableSum(self.space, tables)


class ExpectedWork:
    """Sums the work of blocks in their precisions: a covariate of latency where there is no table.

    With it the surrogate of a search for `cifar10-resnet` with int8 by block predicted latencies
    of left-out architectures with a root mean square log error of 0.143, 0.126 and 0.088 from 20,
    40 and 60 measured ones, without it of 0.163, 0.155 and 0.108; sums of MACs changed nothing.
    """

    def __init__(self, index: ChainIndex) -> None:
        pairs = zip(index.specs, index.macs.tolist(), strict=True)
        work = np.array([[expected_work(spec, macs)] for spec, macs in pairs])
        self._sum = LookupTableSum(index.space, block_tables(index, work))

    def __call__(self, archs: Architectures) -> FloatArray:
        """Return the expected work of n architectures, (n,), in multiply-accumulates of float32.

        Raises:
            InputError: Architectures of another space.
        """
        work: FloatArray = self._sum(archs)[:, 0]
        return work


def _costs(
    space: SearchSpace, index: ChainIndex | None, tables: Sequence[LatencyTable]
) -> LookupTableSum:
    """Return the columns to mix: each table's sum, else a constant, MACs and blocks."""
    if index is None:
        if tables:
            raise InputError("latency tables are about blocks; give the blocks of the supernet")
        return LookupTableSum(space, [LookupTable((), np.ones(1))])
    if not tables:
        values = np.column_stack([0.0 * index.macs, index.macs / 1e9, np.ones(len(index.macs))])
        constant = LookupTable((), np.array([1.0, 0.0, 0.0]))
        return LookupTableSum(space, [*block_tables(index, values), constant])
    for table in tables:
        table.check_covers(index.specs)
    latencies = [[table.blocks[spec].latency_ms for spec in index.specs] for table in tables]
    overheads = LookupTable((), np.array([table.overhead_ms for table in tables]))
    return LookupTableSum(space, [*block_tables(index, np.array(latencies).T), overheads])


def _mixed(costs: FloatArray, latencies: FloatArray) -> FloatArray:
    """Return the non-negative weights (n_costs,) of the smallest relative errors.

    A weak ridge spreads the weights where too few subnets distinguish the columns.
    """
    scale = np.maximum(costs.mean(axis=0), 1e-12) / latencies.mean()
    rows = costs / scale / latencies[:, np.newaxis]
    n_costs = rows.shape[1]
    even = np.full(n_costs, 1.0 / n_costs)
    ridge = _RIDGE * np.sqrt(len(latencies))
    weights, _ = nnls(
        np.concatenate([rows, ridge * np.eye(n_costs)]),
        np.concatenate([np.ones(len(latencies)), ridge * even]),
    )
    mix: FloatArray = weights / scale
    return mix
