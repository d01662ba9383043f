"""Sequential repair: each layer of a subnet solved anew on what the subnet itself computes.

With X, what a layer of the subnet reads for calibration samples, and y, what the layer of the
original puts out for them, the layer's new weight is
W' = W1 + (C_yx - W1 C_xx)(C_xx + l I)^-1, where W1 is its repaired weight. Where the output is
added to a shortcut, y also makes up for what the subnet's shortcut lacks. Later layers see the
outputs of those that were solved.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwsearch.elastic.analysis.additions import additions
from hwsearch.elastic.analysis.consumers import Linear, linear_layers
from hwsearch.elastic.analysis.patches import input_rows, output_rows, row_count
from hwsearch.elastic.analysis.walk import Walk
from hwsearch.elastic.build import sliced
from hwsearch.elastic.graph import Graph, Structure
from hwsearch.elastic.repair.reference import LayerRows, Reference, channel_moments
from hwsearch.elastic.repair.regression import Regression

_VARIANCE_RATIO = (0.04, 25.0)


def sequential(
    structure: Structure,
    kept: Mapping[str, NDArray[np.bool_]],
    dropped: Collection[str],
    replaced: Mapping[str, NDArray[Any]],
    reference: Reference,
    *,
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
        reference: What the model puts out for calibration samples.
        progress: Called with the layers done and the layers in all.

    Returns:
        ``replaced`` with the changes: input axes as they are left, other axes whole.
    """
    return _Sequential(structure, kept, dropped, replaced, reference).run(progress)


class _Sequential:
    def __init__(
        self,
        structure: Structure,
        kept: Mapping[str, NDArray[np.bool_]],
        dropped: Collection[str],
        replaced: Mapping[str, NDArray[Any]],
        reference: Reference,
    ) -> None:
        self._structure, self._kept, self._reference = structure, kept, reference
        self._replaced = dict(replaced)
        model = sliced(structure, kept, dropped, replaced)
        weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self._subnet = Walk(model, weights, reference.pieces)
        part = Graph(proto=model, weights=weights, origins={}, shapes={}, digest="")
        self._layers = linear_layers(part)
        self._additions = additions(model, weights, list(self._layers))

    def run(self, progress: Callable[[int, int], None] | None) -> dict[str, NDArray[np.float32]]:
        changed = self._subnet.nodes[self._first_change() :]
        layers = [self._layers[node.name] for node in changed if node.name in self._layers]
        norms = {node.name for node in changed if node.op_type == "BatchNormalization"}
        done: set[str] = set()
        for node in changed:
            if node.name in norms:
                self._recalibrate(node)
                done.add(node.name)
            elif node.name in self._layers and node.name not in done:
                same = self._alike(self._layers[node.name], layers)
                self._solve(same)
                done |= {layer.node for layer in same}
            else:
                continue
            if progress is not None:
                progress(len(done), len(layers) + len(norms))
        return self._replaced

    def _first_change(self) -> int:
        """Return how many nodes original and subnet have in common at the begin."""
        common, graph = 0, self._structure.graph
        for ours, theirs in zip(self._subnet.nodes, graph.proto.graph.node, strict=False):
            read = [name for name in ours.input if name in graph.weights]
            same = all(
                name not in self._replaced
                and _equal(self._subnet.weights[name], graph.weights[name])
                for name in read
            )
            if not same or ours != theirs:
                break
            common += 1
        return common

    def _alike(self, first: Linear, layers: Sequence[Linear]) -> list[Linear]:
        """Return a layer, and others that are solved with the same rows of the same input."""
        rows = self._reference.rows(first.node)
        return [
            layer
            for layer in layers
            if layer is first
            or (
                (layer.key, layer.bias is None) == (first.key, first.bias is None)
                and not {layer.node, first.node} & self._reference.additions.keys()
                and _same(rows, self._reference.rows(layer.node))
            )
        ]

    def _solve(self, layers: Sequence[Linear]) -> None:
        """Solve layers that read the same, and put their weights into subnet and result."""
        layer, rows = layers[0], self._reference.rows(layers[0].node)
        if rows is None:
            return
        self._subnet.forward(self._subnet.index(layer.node))
        sizes = np.array([len(chosen) for chosen in rows.chosen])
        order = np.argsort(self._reference.folds, kind="stable")
        starts = dict(
            zip(order.tolist(), (np.cumsum(sizes[order]) - sizes[order]).tolist(), strict=True)
        )
        read: NDArray[np.float32] | None = None
        for number, values in enumerate(self._subnet.values):
            x = values[layer.value]
            if row_count(layer.window, x.shape, layer.rows_axis) != rows.counts[number]:
                return
            found = input_rows(
                layer.window,
                x,
                rows.chosen[number],
                groups=layer.groups,
                rows_axis=layer.rows_axis,
            )
            if read is None:
                read = np.empty((sizes.sum(), *found.shape[1:]), np.float32)
            read[starts[number] : starts[number] + len(found)] = found
        assert read is not None
        first = int(sizes[np.array(self._reference.folds) == 0].sum())
        regression = Regression(read, first, centred=layer.bias is not None)
        for each in layers:
            wanted = self._wanted(each, order)
            if wanted is not None:
                self._apply(each, wanted, regression)

    def _wanted(self, layer: Linear, order: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return what a layer of the subnet should put out: (n, outputs), pieces in an order.

        None if that is not known.
        """
        rows = self._reference.rows(layer.node)
        assert rows is not None
        outputs = self._kept_positions(layer.weight, layer.output_axis, layer)
        if len(outputs) != rows.outputs:
            return None
        parts = []
        for number in order.tolist():
            found = self._reference.wanted(rows, number)[:, outputs]
            shortcut = self._shortcut(layer, rows, number, int(outputs.sum()))
            if shortcut is None:
                return None
            parts.append(found - shortcut)
        return np.concatenate(parts)

    def _shortcut(
        self, layer: Linear, rows: LayerRows, piece: int, outputs: int
    ) -> NDArray[np.float32] | float | None:
        """Return what the subnet adds to a layer's output, at the chosen rows of a piece.

        It is 0 where the wanted outputs contain no shortcut, or the addition is gone because
        the shortcut was left out, and None if it cannot be told.
        """
        theirs = self._reference.additions.get(layer.node)
        if theirs is None or not self._subnet.has(theirs.node.name):
            return 0.0
        ours = self._additions.get(layer.node)
        if ours is None or ours.node.name != theirs.node.name:
            return None
        value = self._subnet.values[piece].get(ours.node.input[ours.shortcut])
        if value is None:
            return None
        shape = list(rows.shapes[piece])
        shape[1 if layer.window is not None else layer.rows_axis] = outputs
        added = ours.as_output(value, shape, self._subnet.weights)
        if added is None:
            return None
        return output_rows(layer.window, added, rows.chosen[piece], rows_axis=layer.rows_axis)

    def _apply(self, layer: Linear, wanted: NDArray[np.float32], regression: Regression) -> None:
        """Put the new weights of a layer into the subnet and the result."""
        weights, bias = self._subnet.weights, layer.bias
        matrix = layer.matrix(weights[layer.weight])
        if bias is not None:
            if layer.op == "MatMul":  # the original's output is without the constant that follows
                given = self._structure.graph.weights[bias.name].reshape(-1)
                wanted += given[self._kept_positions(layer.weight, layer.output_axis)]
            wanted -= (bias.scale * weights[bias.name].reshape(-1)).astype(np.float32)
        scaled = layer.scale * matrix.reshape(*matrix.shape[:2], -1)
        change = regression.change(wanted, scaled)
        matrix = matrix + (change.weight / layer.scale).reshape(matrix.shape)
        window = () if layer.window is None else layer.window.kernel
        self._put(layer.weight, layer.array(matrix, window), layer.output_axis, layer.input_axis)
        if bias is not None:
            moved = weights[bias.name].reshape(-1) + change.constant / bias.scale
            shape = weights[bias.name].shape
            self._put(bias.name, moved.reshape(shape).astype(np.float32), len(shape) - 1)

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
        names = list(node.input[3:5])
        if any(name not in self._subnet.weights for name in names):
            return  # they are computed
        self._subnet.forward(self._subnet.index(node.name))
        left = self._kept_positions(names[0], 0)
        ours = channel_moments(values[node.input[0]] for values in self._subnet.values)
        theirs = self._reference.moments(node.name)
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


def _same(left: LayerRows | None, right: LayerRows | None) -> bool:
    """Return whether both are the same rows."""
    if left is None or right is None:
        return False
    return all(map(np.array_equal, left.chosen, right.chosen))
