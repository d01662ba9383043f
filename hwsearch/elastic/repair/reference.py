"""What the layers of a model put out for calibration samples, which its subnets are solved for."""

import math
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.additions import additions
from hwsearch.elastic.analysis.consumers import linear_layers
from hwsearch.elastic.analysis.patches import output_rows, row_count
from hwsearch.elastic.analysis.walk import peak_bytes
from hwsearch.elastic.graph import Graph
from hwsearch.elastic.repair.sampling import Inputs, Samples, chosen_rows
from hwsearch.models.execution import Session

ROWS = 6000  # of 10,000, the divergence of subnets of the bundled network is lower by 2%
LIVE_BYTES = 2**29  # of values of a subnet at a time; beyond it, fewer samples are used
FILE_BYTES = 2**32  # of rows that are kept in the temporary file; beyond it, there are fewer
_ROWS_PER_COLUMN = 30  # more of them change nothing
_MIN_ROWS = 2000
_PIECE = 32  # samples that are run at once
_PIECES = 8  # at least, so that both folds get the same number of samples
_PIECE_BYTES = 256 * 2**20  # of values that are kept while a piece is run


@dataclass(slots=True, eq=False)
class LayerRows:
    """Rows that a layer is solved with, of every piece.

    Attributes:
        chosen: Which of the rows.
        counts: Number of all rows of a piece.
        shapes: Of the layer's output for a piece.
        outputs: Number of the layer's outputs.
        places: Where the wanted outputs lie in the file.
    """

    outputs: int
    chosen: list[NDArray[np.int64]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class Reference:
    """A model's own values for calibration samples, gathered once for all its subnets.

    Attributes:
        pieces: The samples: inputs by name.
        folds: Fold of each piece, 0 or 1.
        additions: Layer -> the residual addition whose shortcut its wanted outputs contain.
    """

    def __init__(
        self, graph: Graph, batches: Iterable[Inputs], *, rows: int = ROWS, seed: int = 0
    ):
        """Run the model on samples.

        Args:
            graph: The model.
            batches: Calibration samples: inputs by name.
            rows: About how many rows (positions of samples) a layer is solved with.
            seed: Of the rows that are drawn.

        Raises:
            InputError: The samples do not fit the model.
        """
        samples = Samples(graph, batches)
        samples = samples.spread(
            max(1, LIVE_BYTES // max(peak_bytes(graph.proto, graph.shapes), 1))
        )
        layers = linear_layers(graph)
        nodes = {node.name: node for node in graph.proto.graph.node}
        self._norms = [n for n in nodes.values() if n.op_type == "BatchNormalization"]
        found = additions(graph.proto, graph.weights, list(layers))
        # Only shortcuts that are computed before the layer: later ones follow it themselves.
        order = {out: row for row, n in enumerate(nodes.values()) for out in n.output}
        self.additions = {
            name: each
            for name, each in found.items()
            if order.get(each.node.input[each.shortcut], -1) < order[nodes[name].output[0]]
        }
        self._outputs = {name: nodes[name].output[0] for name in layers}
        values = dict.fromkeys([*self._outputs.values(), *(x.value for x in layers.values())])
        values |= dict.fromkeys(a.node.input[a.shortcut] for a in self.additions.values())
        values |= dict.fromkeys(norm.input[0] for norm in self._norms)
        each = sum(4 * math.prod(graph.shapes.get(name, ())) for name in values)
        most = min(_PIECE, -(-samples.count // _PIECES), _PIECE_BYTES // max(each, 1))
        self.pieces = samples.split(max(1, most))
        self._graph, self._layers, self._seed = graph, layers, seed
        self._count = samples.count
        self.folds = self._folds()
        self._wanted = self._numbers_of_rows(rows)
        self._rows = {name: LayerRows(self._channels(name)) for name in layers}
        self._sums: dict[str, list[Any]] = {norm.name: [] for norm in self._norms}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        session = Session(graph.proto, list(values), graph.weights)
        for number, piece in enumerate(self.pieces):
            self._add(number, piece, session(piece))

    def rows(self, layer: str) -> LayerRows | None:
        """Return the rows of a layer; None if its outputs are no rows of its input."""
        return self._rows.get(layer)

    def wanted(self, rows: LayerRows, piece: int) -> NDArray[np.float32]:
        """Return what a layer should put out, at the chosen rows of a piece: (n, outputs).

        Where its output is added to a shortcut, that is contained.
        """
        shape = len(rows.chosen[piece]), rows.outputs
        self._file.seek(rows.places[piece])
        content = self._file.read(4 * math.prod(shape))
        return np.frombuffer(content, np.float32).reshape(shape)

    def moments(self, norm: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and variance of each channel that a batch norm reads."""
        return _moments(self._sums[norm])

    def _folds(self) -> list[int]:
        found, sizes = [], [0, 0]
        for piece in self.pieces:
            found.append(int(sizes[1] < sizes[0]))
            sizes[found[-1]] += len(next(iter(piece.values())))
        return found

    def _channels(self, name: str) -> int:
        layer = self._layers[name]
        matrix = layer.matrix(self._graph.weights[layer.weight])
        return len(matrix) * len(matrix[0])

    def _numbers_of_rows(self, rows: int) -> dict[str, int]:
        found = {}
        for name, layer in self._layers.items():
            matrix = layer.matrix(self._graph.weights[layer.weight])
            columns = matrix.shape[2] * matrix.shape[3]
            found[name] = min(rows, max(_MIN_ROWS, _ROWS_PER_COLUMN * columns))
        size = sum(4 * count * self._channels(name) for name, count in found.items())
        return {
            name: -(-count * FILE_BYTES // max(size, FILE_BYTES)) for name, count in found.items()
        }

    def _add(self, number: int, piece: Inputs, values: Mapping[str, NDArray[Any]]) -> None:
        samples = len(next(iter(piece.values())))
        for name, layer in self._layers.items():
            if name not in self._rows:
                continue
            rows, x, y = self._rows[name], values[layer.value], values[self._outputs[name]]
            count = row_count(layer.window, x.shape, layer.rows_axis)
            axis = 1 if layer.window is not None else layer.rows_axis
            if y.size != count * rows.outputs or y.shape[axis] != rows.outputs:
                del self._rows[name]
                continue
            wanted = -(-self._wanted[name] * samples // self._count)
            chosen = chosen_rows(layer, x.shape, piece, wanted, (self._seed, number))
            found = output_rows(layer.window, y, chosen, rows_axis=layer.rows_axis)
            if (addition := self.additions.get(name)) is not None:
                shortcut = values[addition.node.input[addition.shortcut]]
                added = addition.as_output(shortcut, y.shape, self._graph.weights)
                if added is None:
                    del self.additions[name]
                else:
                    found = found + output_rows(
                        layer.window, added, chosen, rows_axis=layer.rows_axis
                    )
            rows.places.append(self._file.seek(0, 2))
            self._file.write(np.ascontiguousarray(found, np.float32).data)
            rows.chosen.append(chosen)
            rows.counts.append(count)
            rows.shapes.append(y.shape)
        for norm in self._norms:
            self._sums[norm.name].append(_sums(values[norm.input[0]]))


def channel_moments(
    values: Iterable[NDArray[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each channel, axis 1, of values in pieces."""
    return _moments([_sums(x) for x in values])


def _sums(x: NDArray[Any]) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    total = x.sum(axis=axes, dtype=np.float64)
    return x.size // x.shape[1], total, np.square(x, dtype=np.float64).sum(axis=axes)


def _moments(
    sums: Sequence[tuple[int, NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = sum(each[0] for each in sums)
    mean = np.sum([each[1] for each in sums], axis=0) / count
    squares = np.sum([each[2] for each in sums], axis=0) / count
    return mean, np.maximum(squares - mean**2, 0)
