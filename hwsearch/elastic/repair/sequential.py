"""Sequential repair: each layer of a subnet solved anew on what the subnet itself computes.

The original and the subnet are walked together on calibration samples. With X, what a layer of
the subnet reads, and y, what the layer of the original put out, the layer's new weight is
W' = W1 + (C_yx - W1 C_xx)(C_xx + l I)^-1, where W1 is its repaired weight. Where the output is
added to a shortcut, y also makes up for what the subnet's shortcut lacks. Later layers see the
outputs of those that were solved.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwsearch.elastic.analysis.additions import Addition, additions
from hwsearch.elastic.analysis.consumers import Linear, linear_layers
from hwsearch.elastic.analysis.patches import input_rows, output_rows, row_count
from hwsearch.elastic.analysis.walk import Walk, peak_bytes
from hwsearch.elastic.build import sliced
from hwsearch.elastic.graph import Graph, Structure
from hwsearch.elastic.repair.regression import Change, solve
from hwsearch.elastic.repair.sampling import Samples, chosen_rows
from hwsearch.elastic.repair.statistics import ROWS

LIVE_BYTES = 2**30  # of values of original and subnet; beyond it, fewer samples are used
_PIECE = 32  # samples that are run at once
_VARIANCE_RATIO = (0.04, 25.0)


def sequential(
    structure: Structure,
    kept: Mapping[str, NDArray[np.bool_]],
    dropped: Collection[str],
    replaced: Mapping[str, NDArray[Any]],
    batches: Iterable[Mapping[str, NDArray[Any]]],
    *,
    rows: int = ROWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return new weights of a subnet, by initialiser, for `hwsearch.elastic.build.sliced`.

    Batch norms get the mean and variance that the subnet's own values have, relative to the
    original's.

    Args:
        structure: The model, its groups and branches.
        kept: Group -> (units,): which are kept.
        dropped: Branches that are left out.
        replaced: Repaired weights; see `Repair.weights`.
        batches: Calibration samples: inputs by name.
        rows: About how many rows (positions of samples) a layer is solved with.
        seed: Of the rows that are drawn.
        progress: Called with the layers done and the layers in all.

    Returns:
        ``replaced`` with the changes: input axes as they are left, other axes whole.
    """
    return _Sequential(structure, kept, dropped, replaced, batches, rows, seed).run(progress)


class _Sequential:
    def __init__(
        self,
        structure: Structure,
        kept: Mapping[str, NDArray[np.bool_]],
        dropped: Collection[str],
        replaced: Mapping[str, NDArray[Any]],
        batches: Iterable[Mapping[str, NDArray[Any]]],
        rows: int,
        seed: int,
    ) -> None:
        self._structure, self._kept, self._seed = structure, kept, seed
        self._replaced = dict(replaced)
        graph = structure.graph
        samples = Samples(graph, batches)
        most = max(1, LIVE_BYTES // max(2 * peak_bytes(graph.proto, graph.shapes), 1))
        self._pieces = samples.spread(most).split(_PIECE)
        self._count = sum(len(next(iter(piece.values()))) for piece in self._pieces)
        self._rows = rows
        model = sliced(structure, kept, dropped, replaced)
        weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self._original = Walk(graph.proto, graph.weights, self._pieces)
        self._subnet = Walk(model, weights, self._pieces)
        part = Graph(proto=model, weights=weights, origins={}, shapes={}, digest="")
        self._layers = linear_layers(part)
        self._additions = additions(model, weights, list(self._layers))
        self._model = model

    def run(self, progress: Callable[[int, int], None] | None) -> dict[str, NDArray[np.float32]]:
        start = self._begin()
        solved = [
            node
            for node in self._subnet.nodes[start:]
            if node.name in self._layers or node.op_type == "BatchNormalization"
        ]
        for number, node in enumerate(solved):
            if node.name in self._layers:
                self._solve(node, self._layers[node.name])
            else:
                self._recalibrate(node)
            if progress is not None:
                progress(number + 1, len(solved))
        return self._replaced

    def _begin(self) -> int:
        """Run what original and subnet have in common."""
        common = 0
        given = self._structure.graph.weights
        for ours, theirs in zip(self._subnet.nodes, self._original.nodes, strict=False):
            read = [name for name in ours.input if name in given]
            same = all(
                name not in self._replaced and _equal(self._subnet.weights[name], given[name])
                for name in read
            )
            if not same or ours != theirs:
                break
            common += 1
        self._original.forward(common, self._subnet.needed(common))
        self._subnet.take_over(self._original, common)
        return common

    def _solve(self, node: onnx.NodeProto, layer: Linear) -> None:
        original = self._original.nodes[self._original.index(node.name)]
        addition = self._additions.get(node.name)
        keep = {original.output[0]}
        self._original.forward(self._original.index(node.name) + 1, keep)
        self._subnet.forward(self._subnet.index(node.name))
        outputs = self._kept_positions(layer.weight, layer.output_axis, layer)
        parts = []
        for number, (inputs, ours, theirs) in enumerate(
            zip(self._pieces, self._subnet.values, self._original.values, strict=True)
        ):
            x, y = ours[layer.value], theirs[original.output[0]]
            count = row_count(layer.window, x.shape, layer.rows_axis)
            channels = y.shape[1] if layer.window is not None else y.shape[layer.rows_axis]
            if count * channels != y.size or channels != len(outputs):
                return
            wanted = -(-self._rows * len(next(iter(inputs.values()))) // self._count)
            chosen = chosen_rows(layer, x.shape, inputs, wanted, (self._seed, number))
            target = self._rows_of(layer, y, chosen)[:, outputs]
            if addition is not None:
                target = target + self._lacking(addition, layer, ours, theirs, y, chosen, outputs)
            axis = layer.rows_axis
            read = input_rows(layer.window, x, chosen, groups=layer.groups, rows_axis=axis)
            samples = chosen // max(count // len(next(iter(inputs.values()))), 1)
            parts.append((read, target, samples + number * _PIECE))
        self._apply(layer, outputs, *(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _lacking(
        self,
        addition: Addition,
        layer: Linear,
        ours: Mapping[str, NDArray[Any]],
        theirs: Mapping[str, NDArray[Any]],
        y: NDArray[Any],
        chosen: NDArray[np.int64],
        outputs: NDArray[np.bool_],
    ) -> NDArray[np.float32] | float:
        """Return what the shortcut of the original has more than the subnet's, at chosen rows."""
        node = self._original.nodes[self._original.index(addition.node.name)]
        left, right = addition.node.input[addition.shortcut], node.input[addition.shortcut]
        if left not in ours or right not in theirs:
            return 0.0
        axis = 1 if layer.window is not None else layer.rows_axis % y.ndim
        shape = list(y.shape)
        shape[axis] = int(outputs.sum())
        subnet = addition.as_output(ours[left], shape, self._subnet.weights)
        path = tuple(self._original.nodes[self._original.index(n.name)] for n in addition.path)
        full = Addition(node=node, shortcut=addition.shortcut, path=path)
        original = full.as_output(theirs[right], y.shape, self._original.weights)
        if subnet is None or original is None:
            return 0.0
        whole = self._rows_of(layer, original, chosen)[:, outputs]
        lacking: NDArray[np.float32] = whole - self._rows_of(layer, subnet, chosen)
        return lacking

    @staticmethod
    def _rows_of(layer: Linear, y: NDArray[Any], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        return output_rows(layer.window, y, chosen, rows_axis=layer.rows_axis)

    def _apply(
        self,
        layer: Linear,
        outputs: NDArray[np.bool_],
        read: NDArray[np.float32],
        target: NDArray[np.float32],
        samples: NDArray[np.int64],
    ) -> None:
        """Solve a layer, and put its weights into the subnet and the result."""
        weights = self._subnet.weights
        matrix = layer.matrix(weights[layer.weight])
        given = self._structure.graph.weights
        constant = np.zeros(1)
        if layer.bias is not None:
            # The original's output of a MatMul is without its constant, which follows.
            constant = layer.bias.scale * weights[layer.bias.name].reshape(-1)
            if layer.op == "MatMul":
                target = target + given[layer.bias.name].reshape(-1)[outputs]
        change: Change = solve(
            read,
            (target - constant).astype(np.float32),
            layer.scale * matrix.reshape(*matrix.shape[:2], -1),
            samples,
            centred=layer.bias is not None,
        )
        matrix = matrix + (change.weight / layer.scale).reshape(matrix.shape)
        window = () if layer.window is None else layer.window.kernel
        self._put(layer.weight, layer.array(matrix, window), layer.output_axis, layer.input_axis)
        if layer.bias is not None:
            moved = weights[layer.bias.name].reshape(-1) + change.constant / layer.bias.scale
            shape = weights[layer.bias.name].shape
            self._put(layer.bias.name, moved.reshape(shape).astype(np.float32), len(shape) - 1)

    def _put(
        self, name: str, array: NDArray[np.float32], axis: int, input_axis: int | None = None
    ) -> None:
        """Set a weight of the subnet, and in the result with the positions along its axis."""
        self._subnet.weights[name] = array
        full = self._structure.graph.weights[name]
        if input_axis is not None and array.shape[input_axis] != full.shape[input_axis]:
            full = np.compress(self._kept_positions(name, input_axis), full, input_axis)
        full = np.array(full, np.float32)
        where: list[Any] = [slice(None)] * full.ndim
        where[axis] = self._kept_positions(name, axis)
        full[tuple(where)] = array
        self._replaced[name] = full

    def _kept_positions(
        self, weight: str, axis: int, layer: Linear | None = None
    ) -> NDArray[np.bool_]:
        """Return which positions of an axis of a weight are left, or of its layer's output."""
        left = np.ones(self._structure.graph.weights[weight].shape[axis], bool)
        for group in self._structure.groups:
            for slot in group.slots if group.name in self._kept else ():
                if slot.weight == weight and slot.axis == axis:
                    left[slot.positions[~self._kept[group.name]]] = False
        if layer is not None and layer.op == "ConvTranspose":
            return np.tile(left, layer.groups)
        return left

    def _recalibrate(self, node: onnx.NodeProto) -> None:
        """Move mean and variance of a batch norm as those of its input moved."""
        original = self._original.nodes[self._original.index(node.name)]
        names = list(node.input[3:5])
        if any(name not in self._subnet.weights for name in names):
            return  # they are computed
        self._original.forward(self._original.index(node.name))
        self._subnet.forward(self._subnet.index(node.name))
        left = self._kept_positions(names[0], 0)
        ours = _moments([values[node.input[0]] for values in self._subnet.values])
        theirs = _moments([values[original.input[0]] for values in self._original.values])
        mean, variance = (self._subnet.weights[name].astype(np.float64) for name in names)
        mean = mean + ours[0] - theirs[0][left]
        ratio = np.divide(
            ours[1], theirs[1][left], where=theirs[1][left] > 0, out=np.ones_like(mean)
        )
        variance = variance * np.clip(ratio, *_VARIANCE_RATIO)
        for name, array in zip(names, (mean, variance), strict=True):
            self._put(name, array.astype(np.float32), 0)


def _equal(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Return whether a weight is whole, or integers are what they were."""
    if ours.shape != theirs.shape:
        return False
    return ours.dtype.kind == "f" or bool((ours == theirs).all())


def _moments(values: list[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each channel, axis 1, of values in pieces."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for x in values:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        count += x.size // x.shape[1]
        total = total + x.sum(axis=axes, dtype=np.float64)
        squares = squares + np.square(x, dtype=np.float64).sum(axis=axes)
    mean = total / count
    return mean, np.maximum(squares / count - mean**2, 0)
