"""Accumulation of means and covariances of layers' inputs, piece by piece."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import scipy.linalg.lapack
from numpy.typing import NDArray
from safetensors.numpy import save_file

from hwsearch.elastic.analysis.consumers import Linear
from hwsearch.elastic.analysis.patches import input_rows
from hwsearch.elastic.graph import Structure
from hwsearch.elastic.repair.sampling import (
    BUFFERED_ROWS,
    MIN_ROWS,
    Inputs,
    Plan,
    chosen_rows,
    too_few,
)
from hwsearch.errors import InputError
from hwsearch.files import staged_file
from hwsearch.models.execution import Session

Finished = tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


class Accumulator:
    """Sums over the rows that layers read.

    Args:
        layers: One for each input, by its key.
        data: Digest of samples and settings, by which unfinished sums are found again.
    """

    def __init__(
        self,
        structure: Structure,
        layers: Mapping[str, Linear],
        plans: Mapping[str, Plan],
        *,
        samples: int,
        data: str,
        seed: int,
    ) -> None:
        self.data = data
        self._graph, self._layers, self._plans = structure.graph, layers, plans
        self._samples, self._seed = samples, seed
        self._sums = {key: _Sum(plan) for key, plan in plans.items()}
        given = {value.name for value in structure.graph.proto.graph.input}
        read = dict.fromkeys(layer.value for layer in layers.values())
        values = [value for value in read if value not in given]
        self._session = Session(structure.graph.proto, values, structure.graph.weights)

    def add(self, piece: int, inputs: Inputs) -> None:
        """Add a piece of the samples; sums that hold it already are left alone."""
        values = {**inputs, **(self._session(inputs) if self._session.outputs else {})}
        count = len(next(iter(inputs.values())))
        for key, layer in self._layers.items():
            if self._sums[key].pieces > piece:
                continue
            wanted = -(-self._plans[key].rows * count // self._samples)
            x = values[layer.value]
            chosen = chosen_rows(layer, x.shape, inputs, wanted, (self._seed, piece))
            groups, axis = layer.groups, layer.rows_axis
            rows = input_rows(layer.window, x, chosen, groups=groups, rows_axis=axis)
            if not np.isfinite(rows.sum(dtype=np.float64)):
                raise InputError(
                    f"what layer {layer.node!r} reads is not finite (NaN or infinite) for some "
                    f"calibration samples; look at the samples and their preprocessing"
                )
            self._sums[key].add(rows)

    def finished(self) -> dict[str, Finished]:
        """Return count, mean, packed covariance and rows of each input.

        Raises:
            InputError: A layer read too few rows, or nothing that any layer read varies.
        """
        found = {}
        varies = False
        for key, layer in self._layers.items():
            total = self._sums[key]
            if total.count < MIN_ROWS:
                needed = -(-MIN_ROWS * self._samples // max(total.count, 1))
                raise too_few(layer, total.count, self._samples, needed)
            found[key], spread = total.finished()
            varies = varies or spread > 0
        if found and not varies:
            raise InputError(
                f"what layers read, such as {next(iter(self._layers.values())).node!r}, is the "
                f"same for all calibration samples; give samples as the model meets them"
            )
        return found

    def keep(self, path: Path) -> None:
        """Write unfinished sums, unless the interruption came while one was being changed."""
        if any(total.changing for total in self._sums.values()):
            return
        arrays: dict[str, NDArray[Any]] = {}
        metadata = {"data": self.data, "digest": self._graph.digest}
        for number, total in enumerate(self._sums.values()):
            metadata[f"{number}"] = f"{total.pieces} {total.count}"
            arrays |= {f"{number}.{name}": array for name, array in total.arrays().items()}
        # What cannot be written is computed anew; the reason of the interruption is told.
        with suppress(OSError, safetensors.SafetensorError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged_file(path) as file:
                save_file(arrays, file.name, metadata)

    def resume(self, path: Path) -> int:
        """Read the sums of an earlier, interrupted call; return how many pieces all hold."""
        if not path.is_file():
            return 0
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if (metadata.get("data"), metadata.get("digest")) != (
                    self.data,
                    self._graph.digest,
                ):
                    return 0
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for number, total in enumerate(self._sums.values()):
                pieces, count = map(int, metadata[str(number)].split())
                own = {
                    n.partition(".")[2]: a for n, a in arrays.items() if n.startswith(f"{number}.")
                }
                total.restore(pieces, count, own)
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            return 0
        return min((total.pieces for total in self._sums.values()), default=0)


class _Sum:
    """Sums of one input: of its rows and of their products, or the rows themselves.

    Rows are shifted by the mean of the first ones, so that products of float32 stay precise.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.count = self.pieces = 0
        self.changing = False
        self._shift = np.zeros((plan.groups, plan.columns), np.float32)
        self._total = np.zeros((plan.groups, plan.columns))
        size = plan.columns if plan.dense else 0
        self._products = np.zeros((plan.groups, size, size))
        self._buffer: list[NDArray[np.float32]] = []

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add rows (rows, convolution groups, columns)."""
        if not self.count and len(rows):
            self._shift = rows.mean(axis=0)
        rows = rows - self._shift
        product = None
        buffered = [*self._buffer, rows]
        if self.plan.dense and sum(map(len, buffered)) >= BUFFERED_ROWS:
            product, buffered = _product(buffered), []
        total = rows.sum(axis=0, dtype=np.float64)
        self.changing = True
        if product is not None:
            self._products += product
        self._total += total
        self._buffer, self.count, self.pieces = buffered, self.count + len(rows), self.pieces + 1
        self.changing = False

    def finished(self) -> tuple[Finished, float]:
        """Return the statistics, and the total variance."""
        offset = self._total / self.count
        mean = (self._shift + offset).astype(np.float32)
        none = np.zeros((self.plan.groups, 0), np.float32)
        if not self.plan.dense:
            rows = np.concatenate(self._buffer).transpose(1, 0, 2) - offset[:, None]
            kept = rows.astype(np.float32)
            spread = float(np.square(kept).sum())
            return (self.count, mean, none, kept), spread
        products = self._products
        if self._buffer:
            products = products + _product(self._buffer)
        packed = []
        spread = 0.0
        for own, off in zip(products, offset, strict=True):
            covariance = own / self.count - np.outer(off, off)
            np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), 0))
            spread += float(np.trace(covariance))
            lower = scipy.linalg.lapack.strttp(covariance.astype(np.float32), uplo="L")[0]
            packed.append(lower)
        return (self.count, mean, np.stack(packed), none[:, :, None]), spread

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays."""
        empty = np.zeros((0, self.plan.groups, self.plan.columns), np.float32)
        buffer = np.concatenate([empty, *self._buffer])
        return {
            "shift": self._shift,
            "total": self._total,
            "products": self._products,
            "buffer": buffer,
        }

    def restore(self, pieces: int, count: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the arrays of an earlier sum."""
        if arrays["products"].shape != self._products.shape:
            raise ValueError("sums of another layer")
        self.pieces, self.count = pieces, count
        self._shift, self._total = arrays["shift"], arrays["total"]
        self._products, self._buffer = arrays["products"], [arrays["buffer"]]


def _product(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the sum of x x' (convolution groups, columns, columns) over rows."""
    x = np.concatenate(rows)
    if x.shape[1] == 1:
        flat = x[:, 0]
        return (flat.T @ flat)[None]
    found: NDArray[np.float32] = np.matmul(x.transpose(1, 2, 0), x.transpose(1, 0, 2))
    return found
