"""Calibration samples in pieces, and which of their rows statistics are drawn from."""

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic.analysis.consumers import Linear
from hwsearch.elastic.analysis.patches import row_count
from hwsearch.elastic.graph import Graph
from hwsearch.errors import InputError

Inputs = Mapping[str, NDArray[Any]]
MIN_ROWS = 16  # of one layer: below, its covariance says nothing
# Wider inputs keep some rows instead of a covariance, whose factorisation would take minutes.
MAX_DENSE = 8192
ROWS_OF_WIDE = 2048
_DENSE_RATIO = 4  # columns for each row, up to which a covariance takes less time than the rows
BUFFERED_ROWS = 1024


class Samples:
    """Inputs of a model for a number of samples.

    Raises:
        InputError: They do not fit the model's inputs, or are none, or all equal.
    """

    def __init__(self, graph: Graph, batches: Iterable[Inputs]) -> None:
        fitted = [_fitted(graph, batch) for batch in batches]
        self.batches = [batch for batch in fitted if len(next(iter(batch.values())))]
        self.count = sum(len(next(iter(batch.values()))) for batch in self.batches)
        if not self.count:
            raise InputError("there are no calibration samples; give 64 or more")
        if self.count > 1 and self._all_equal():
            raise InputError(
                f"the {self.count} calibration samples are all equal: nothing can be learned from "
                "what never varies; give samples as the model meets them"
            )

    def digest(self, *settings: object) -> str:
        """Return the SHA-256 of the samples, and of settings, in hex."""
        found = hashlib.sha256(repr(settings).encode())
        for batch in self.batches:
            for name in sorted(batch):
                array = np.ascontiguousarray(batch[name])
                found.update(f"{name} {array.dtype} {array.shape}".encode())
                found.update(array.view(np.uint8).reshape(-1).data)
        return found.hexdigest()

    def spread(self, most: int) -> "Samples":
        """Return about ``most`` of the samples, from all batches evenly."""
        if self.count <= most:
            return self
        found = object.__new__(Samples)
        found.batches, found.count = [], 0
        for batch in self.batches:
            size = len(next(iter(batch.values())))
            taken = max(1, size * most // self.count)
            at = np.arange(taken) * size // taken
            found.batches.append({name: array[at] for name, array in batch.items()})
            found.count += taken
        return found

    def split(self, size: int) -> list[Inputs]:
        """Return the samples in pieces of at most ``size``."""
        return [
            {name: array[start : start + size] for name, array in batch.items()}
            for batch in self.batches
            for start in range(0, len(next(iter(batch.values()))), size)
        ]

    def unpadded(self, graph: Graph, size: int) -> list[Inputs]:
        """Return the samples in pieces of at most ``size``, texts without common padding.

        Texts of about equal length are put together, and their padding is cut off, if all inputs
        have one number for each token, the model takes any number of tokens, and padding follows
        the tokens.
        """
        opened = all(
            len(dims := value.type.tensor_type.shape.dim) == 2 and not dims[1].dim_value
            for value in graph.proto.graph.input
        )
        alike = len({batch[name].shape[1:] for batch in self.batches for name in batch}) == 1
        if not (opened and alike):
            return self.split(size)
        whole = {n: np.concatenate([b[n] for b in self.batches]) for n in self.batches[0]}
        masks = token_masks(whole)
        lengths = masks[0].sum(axis=1) if len(masks) == 1 else np.zeros(0, np.int64)
        if not len(lengths) or (np.diff(masks[0].astype(np.int8), axis=1) > 0).any():
            return self.split(size)
        order = np.argsort(lengths, kind="stable")
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return [
            {n: array[part, : max(1, lengths[part[-1]])] for n, array in whole.items()}
            for part in parts
        ]

    @staticmethod
    def bytes_each(graph: Graph, layers: Mapping[str, Linear]) -> int:
        """Return the bytes of the activations that layers read, for one sample."""
        values = {layer.value for layer in layers.values()}
        return sum(4 * math.prod(graph.shapes[value]) for value in values)

    def pieces(self, graph: Graph, layers: Mapping[str, Linear], most: int) -> Iterator[Inputs]:
        """Yield the samples in pieces whose activations take about ``most`` bytes."""
        each = max(self.bytes_each(graph, layers), 1)
        for batch in self.batches:
            size = len(next(iter(batch.values())))
            larger = max(
                math.prod(x.shape) / size / math.prod(graph.shapes[n]) for n, x in batch.items()
            )
            step = max(1, int(most / (each * max(larger, 1e-9))))
            for start in range(0, size, step):
                yield {name: array[start : start + step] for name, array in batch.items()}

    def _all_equal(self) -> bool:
        first = {name: array[0] for name, array in self.batches[0].items()}
        for batch in self.batches:
            for name, array in batch.items():
                if array.shape[1:] != first[name].shape or (array != first[name][None]).any():
                    return False
        return True


def _fitted(graph: Graph, batch: Inputs) -> dict[str, NDArray[Any]]:
    """Return the inputs of a model in its types; raise InputError if they do not fit."""
    found, counts = {}, {}
    for value in graph.proto.graph.input:
        if value.name not in batch:
            raise InputError(
                f"the calibration samples lack the input {value.name!r}; they have "
                f"{', '.join(map(repr, batch)) or 'none'}"
            )
        array = np.asarray(batch[value.name])
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        dims = [d.dim_value for d in kind.shape.dim][1:]
        fits = array.ndim == len(dims) + 1 and all(
            not wanted or wanted == given
            for wanted, given in zip(dims, array.shape[1:], strict=True)
        )
        if not fits or not np.can_cast(array.dtype, dtype, "same_kind"):
            shape = ", ".join(["samples", *(str(d) if d else "any" for d in dims)])
            raise InputError(
                f"input {value.name!r} of the calibration samples is {array.dtype} of shape "
                f"{array.shape}; the model takes {dtype} of shape ({shape})"
            )
        found[value.name] = array.astype(dtype, copy=False)
        counts[value.name] = len(array)
    if len(set(counts.values())) > 1:
        raise InputError(f"the inputs of a batch have different numbers of samples: {counts}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the input of a layer is accumulated.

    Attributes:
        rows: About how many rows are drawn in all.
        groups: Convolution groups.
        columns: Of each convolution group.
        dense: Whether a covariance is accumulated; else the rows are kept.
    """

    rows: int
    groups: int
    columns: int
    dense: bool

    @property
    def bytes(self) -> int:
        """Bytes that accumulating takes: sums in float64 and their packed halves, or rows."""
        if not self.dense:
            return 8 * self.groups * self.rows * self.columns
        buffer = 4 * BUFFERED_ROWS * self.columns
        return self.groups * (10 * self.columns**2 + buffer)

    @property
    def solving_bytes(self) -> int:
        """Bytes that finishing, or ordering and solving, takes for one input beyond the sums."""
        if not self.dense:
            return 16 * self.rows * self.columns
        return max(4 * self.groups, 24) * self.columns**2

    @classmethod
    def all(
        cls, graph: Graph, layers: Mapping[str, Linear], samples: int, rows: int
    ) -> dict[str, "Plan"]:
        """Return the plan of each layer's input."""
        found = {}
        for key, layer in layers.items():
            matrix = layer.matrix(graph.weights[layer.weight])
            columns = matrix.shape[2] * matrix.shape[3]
            most = rows if columns <= MAX_DENSE else min(rows, ROWS_OF_WIDE)
            drawn = min(most, samples * positions_each(graph, layer))
            dense = columns <= MAX_DENSE and _DENSE_RATIO * drawn > columns
            found[key] = cls(rows=drawn, groups=len(matrix), columns=columns, dense=dense)
        return found


def plans(
    graph: Graph, layers: Mapping[str, Linear], samples: Samples, rows: int
) -> dict[str, Plan]:
    """Return the plan of each layer's input; raise InputError if a layer gets too few rows."""
    found = Plan.all(graph, layers, samples.count, rows)
    for key, layer in layers.items():
        if found[key].rows < MIN_ROWS:
            needed = -(-MIN_ROWS // positions_each(graph, layer))
            raise too_few(layer, found[key].rows, samples.count, needed)
    return found


def too_few(layer: Linear, rows: int, samples: int, needed: int) -> InputError:
    """Return the error for a layer that reads too few rows."""
    return InputError(
        f"{samples} calibration samples give layer {layer.node!r} {rows} inputs, and its "
        f"weights cannot be repaired from fewer than {MIN_ROWS}: give at least {needed} samples, "
        "better some hundred"
    )


def positions_each(graph: Graph, layer: Linear) -> int:
    """Return the rows that a layer reads of one sample."""
    return max(row_count(layer.window, graph.shapes[layer.value], layer.rows_axis), 1)


def chosen_rows(
    layer: Linear, shape: Sequence[int], inputs: Inputs, wanted: int, seed: Sequence[int]
) -> NDArray[np.int64]:
    """Draw rows of a layer's input for a piece, ascending; tokens of padding are never drawn.

    Args:
        layer: Whose rows are drawn.
        shape: Of the input.
        inputs: Of the model.
        wanted: Number of rows, at most.
        seed: With the layer's input, it decides the draw.
    """
    rows = np.arange(row_count(layer.window, shape, layer.rows_axis))
    valid = _unpadded(layer, shape, inputs)
    if valid is not None:
        rows = rows[valid]
    if len(rows) <= wanted:
        return rows
    rng = np.random.default_rng([*seed, zlib.crc32(layer.key.encode())])
    return np.sort(rng.choice(rows, wanted, replace=False, shuffle=False))


def _unpadded(layer: Linear, shape: Sequence[int], inputs: Inputs) -> NDArray[np.bool_] | None:
    """Return for each row whether it is a token and no padding; None if all are."""
    if layer.window is not None:
        if len(shape) != 3:
            return None
        leading = (shape[0], *layer.window.output(shape[2:]))
    else:
        sizes = list(shape)
        del sizes[layer.rows_axis]
        leading = tuple(sizes)
    for mask in token_masks(inputs):
        if leading[:2] == mask.shape:
            found = mask
        elif leading[:2] == mask.shape[::-1]:
            found = mask.T
        elif leading[:1] == (mask.size,):
            found = mask.reshape(-1)
        else:
            continue
        found = found.reshape(*found.shape, *(1,) * (len(leading) - found.ndim))
        return np.broadcast_to(found, leading).reshape(-1)
    return None


def token_masks(inputs: Inputs) -> list[NDArray[np.bool_]]:
    """Return which tokens are not padding, (samples, tokens), of each input that says so."""
    found = []
    for name, array in inputs.items():
        if "mask" in name.lower() and array.ndim == 2 and np.isin(array, (0, 1)).all():
            padding = "padding" in name.lower()  # of PyTorch, which marks what is left out
            found.append(array.astype(bool) != padding)
    return found
