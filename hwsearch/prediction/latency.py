"""Latency of architectures from latency tables, from whole subnets that were measured, or both.

What a table says of an architecture is the sum of its blocks' latencies. The sums of several
tables, of other devices, are mixed with non-negative weights; without a table the numbers of
multiply-accumulates and of blocks take their place. What was measured is then a multiple of the
mix, and the logarithm of that multiple is linear in the encoding; see `RatioModel`. With few
measured subnets the correction is small, and with none the only table is believed as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from hwsearch.chains import BlocksOf, ChainIndex
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, read_bounded, write_atomic
from hwsearch.prediction.base import FloatArray
from hwsearch.prediction.folder import packed_arrays, unpacked_arrays
from hwsearch.prediction.log_ratio import RatioModel, check_positive, step_scale
from hwsearch.prediction.lookup_tables import LookupSum, Term, block_terms, step_terms
from hwsearch.space import Architectures, SearchSpace
from hwsearch.tables import LatencyTable

FORMAT: Final = 1
_UNMEASURED: Final = 0.1  # a table is believed to so much where nothing was measured
_RIDGE: Final = 0.02
_UNREADABLE: Final = (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
_NORMAL_95: Final = 1.959964


class LatencyPredictor:
    """Predicts latencies on one device.

    Args:
        space: The search space that all architectures come from.
        blocks: Gives an architecture's chain of blocks, or what is known of all of them; None
            where subnets are no chains.
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
        self._costs = _costs(space, blocks, given)
        self._n_tables = len(given)
        self._mix: FloatArray = np.ones(1)
        self._ratio: RatioModel | None = None
        self._compiled: LookupSum | None = None

    def fit(self, archs: Architectures, latencies_ms: ArrayLike) -> Self:
        """Learn from whole subnets measured on the device; forgets an earlier fit.

        Args:
            archs: n of them, at least 1.
            latencies_ms: (n,), positive.

        Raises:
            InputError: Architectures of another space, lengths that differ, or a latency that is
                not positive and finite.
        """
        latencies = check_positive("latency", latencies_ms, len(archs))
        self.space.check_own(archs)
        self._mix = _mixed(self._costs(archs), latencies)
        self._compiled = None
        self._ratio = RatioModel(self.space).fit(archs, latencies, self._base(archs))
        return self

    def predict(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return medians and standard deviations of measured latencies, each (n,), in ms.

        Raises:
            InputError: Architectures of another space, or neither a fit nor a single table.
        """
        mean = self.predict_mean(archs)
        if self._ratio is None:
            return mean, mean * _UNMEASURED
        return mean, mean * self._ratio.log_deviation(archs, self._base(archs))

    def predict_mean(self, archs: Architectures) -> FloatArray:
        """Return the medians alone, which takes a fraction of the time.

        Raises:
            InputError: As for `predict`.
        """
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
            base = base * np.exp(correction + constant + slope * self._logs(base))
        mean: FloatArray = base
        return mean

    def interval(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95% interval of measured latencies, each (n,), in ms.

        Raises:
            InputError: As for `predict`.
        """
        mean, deviation = self.predict(archs)
        factor = np.exp(_NORMAL_95 * deviation / mean)
        return mean / factor, mean * factor

    def save(self, path: str | Path) -> None:
        """Write it to an ``.npz`` file of plain arrays, without anything that could be executed.

        Raises:
            InputError: It has not been fitted.
        """
        if self._ratio is None:
            raise InputError("there is nothing to save: call fit first")
        arrays: dict[str, NDArray[np.generic]] = {
            "format": np.array(FORMAT),
            "space": np.array(self.space.to_json()),
            "mix": self._mix,
            "weights": self._ratio.weights_,
            "centres": self._ratio.centres_,
            "covariance": self._ratio.covariance_,
            "noise": np.array(self._ratio.noise_),
        }
        for number, term in enumerate(self._costs.terms):
            arrays[f"columns{number}"] = np.array(term.columns, dtype=np.int64)
            arrays[f"values{number}"] = term.values
        write_atomic(Path(path), packed_arrays(arrays))

    @classmethod
    def load(cls, path: str | Path) -> "LatencyPredictor":
        """Read what `save` wrote.

        Raises:
            InputError: There is no such file, or it is none of these.
        """
        try:
            arrays = unpacked_arrays(read_bounded(Path(path), MAX_BYTES))
            if int(arrays["format"]) != FORMAT:
                raise InputError(f"{str(path)!r} has format {arrays['format']}, not {FORMAT}")
            space = SearchSpace.from_json(str(arrays["space"]))
            predictor = cls(space, None)
            n_terms = sum(name.startswith("columns") for name in arrays)
            predictor._costs = LookupSum(
                space,
                [
                    Term(tuple(arrays[f"columns{n}"].tolist()), arrays[f"values{n}"])
                    for n in range(n_terms)
                ],
            )
            predictor._mix = arrays["mix"]
            ratio = predictor._ratio = RatioModel(space)
            ratio.weights_, ratio.centres_ = arrays["weights"], arrays["centres"]
            ratio.covariance_, ratio.noise_ = arrays["covariance"], float(arrays["noise"])
        except _UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{str(path)!r} holds no latency predictor: {error}; give a file that "
                "LatencyPredictor.save wrote"
            ) from error
        return predictor

    def _base(self, archs: Architectures) -> FloatArray:
        base: FloatArray = self._costs(archs) @ self._mix
        return base

    def _logs(self, base: FloatArray) -> FloatArray:
        logs: FloatArray = np.log(base)
        return logs if self._ratio is None else logs - self._ratio.centres_[1]

    def _compile(self) -> LookupSum:
        """The mix and the correction's part that adds up over choices, as one sum."""
        terms = []
        for term in self._costs.terms:
            mixed = (term.values @ self._mix)[..., np.newaxis]
            terms.append(Term(term.columns, np.concatenate([mixed, 0.0 * mixed], axis=-1)))
        if self._ratio is not None:
            weights = self._ratio.weights_[2:]
            shift = -float(self._ratio.centres_[2:] @ weights)
            scaled = np.column_stack([np.zeros(len(weights)), weights * step_scale(self.space)])
            terms += [*step_terms(self.space, scaled), Term((), np.array([0.0, shift]))]
        return LookupSum(self.space, terms)


def _costs(
    space: SearchSpace, blocks: BlocksOf | ChainIndex | None, tables: Sequence[LatencyTable]
) -> LookupSum:
    """What is mixed: each table's sum, else a constant, multiply-accumulates and blocks."""
    constant = Term((), np.ones(1))
    if blocks is None:
        if tables:
            raise InputError("latency tables are about blocks; give the blocks of the supernet")
        return LookupSum(space, [constant])
    index = blocks if isinstance(blocks, ChainIndex) else ChainIndex(space, blocks)
    if not tables:
        values = np.column_stack([0.0 * index.macs, index.macs / 1e9, np.ones(len(index.macs))])
        return LookupSum(space, [*block_terms(index, values), Term((), np.array([1.0, 0.0, 0.0]))])
    for table in tables:
        table.check_covers(index.specs)
    latencies = [[table.blocks[spec].latency_ms for spec in index.specs] for table in tables]
    overheads = np.array([table.overhead_ms for table in tables])
    return LookupSum(space, [*block_terms(index, np.array(latencies).T), Term((), overheads)])


def _mixed(costs: FloatArray, latencies: FloatArray) -> FloatArray:
    """Non-negative weights (n_costs,) of the smallest relative errors.

    A weak ridge spreads the weights where too few subnets tell the columns apart.
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
