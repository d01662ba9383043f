"""Repair: weights of layers that lost inputs, solved anew in closed form.

With the covariance S and the mean m of a layer's input, what is left of its input, K, and the
weight W, the output changes least, in the mean square, for
W' = W_K + (W S_:K - W_K S_KK)(S_KK + l I)^-1 and b' = b + W m - W' m_K. The ridge l pulls towards
the weights that there were, not towards zero. A row of W' depends on no other row: all rows are
solved, and slicing the output needs no new solution.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.consumers import Linear, readers
from hwsearch.elastic.graph import Structure
from hwsearch.elastic.repair.cache import RepairCache
from hwsearch.elastic.repair.covariance import Covariance, Matrix
from hwsearch.elastic.repair.ridge import ridge_of
from hwsearch.elastic.repair.statistics import Statistics
from hwsearch.errors import unknown

CACHE_BYTES = 512 * 2**20


class Repair:
    """Repaired weights and sensitivities of a structure.

    Args:
        orders: Group -> its units, most important first; see `unit_orders`.
        folder: Where repaired weights are kept for later processes; None keeps them in memory.
        cache_bytes: Of repaired weights that are kept in memory.
    """

    def __init__(
        self,
        structure: Structure,
        statistics: Statistics,
        orders: Mapping[str, NDArray[np.int64]],
        folder: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        statistics.check(structure)
        self._structure, self._statistics, self._orders = structure, statistics, orders
        self._readers = readers(structure)
        self._groups = {group.name: group for group in structure.groups}
        identity = f"{statistics.digest} {statistics.data}"
        self._cache = RepairCache(folder, identity, cache_bytes)
        self._covariances: tuple[str, list[Covariance]] | None = None
        self._residuals: dict[str, dict[str, Matrix]] = {}

    def weights(self, kept: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.float32]]:
        """Return new weights and biases, by initialiser, of the layers that lost inputs.

        The input axis of a weight is that which is left; its other axes are whole, as are
        biases. Batch norms keep their statistics: units that are kept are as they were.

        Args:
            kept: Group -> (units,): which are kept. Groups that are absent keep all.
        """
        for name in kept:
            if name not in self._groups:
                raise unknown("group", name, self._groups)
        found: dict[str, NDArray[np.float32]] = {}
        for node, layer in self._readers.layers.items():
            left = self._readers.kept_positions(node, kept)
            counts = left.sum(axis=1)
            if left.all() or (counts != counts[0]).any() or not counts[0]:
                continue
            lasting = len(self._readers.units[node]) == 1  # else there are too many combinations
            solve = partial(self._solved, layer, left)
            found |= self._cache.get(node, left, solve, lasting)
        return found

    def residuals(self, group: str) -> dict[str, NDArray[np.float64]]:
        """Return layer -> (units + 1,): share of its outputs' variance lost, by units kept.

        It is what least squares cannot recover when a group keeps its first units, in [0, 1].
        """
        if group not in self._groups:
            raise unknown("group", group, self._groups)
        if group not in self._residuals:
            self._residuals[group] = {
                layer.node: self._lost(layer, group) for layer in self._readers.of_group(group)
            }
        return self._residuals[group]

    def _lost(self, layer: Linear, group: str) -> Matrix:
        matrix = layer.matrix(self._structure.graph.weights[layer.weight])
        places, kernel = self._readers.units[layer.node][group], matrix.shape[3]
        order = self._orders[group]
        lost, total = np.zeros(len(order) + 1), 0.0
        for g, covariance in enumerate(self._covariances_of(layer)):
            blocks = [_columns(places[unit][places[unit][:, 0] == g, 1], kernel) for unit in order]
            others = np.ones(covariance.size, bool)
            others[np.concatenate(blocks)] = False
            weight = matrix[g].reshape(matrix.shape[1], -1)
            ridge = self._ridge(layer)
            lost += covariance.lost(weight, np.flatnonzero(others), blocks, ridge)
            total += covariance.energy(weight)
        return np.minimum(lost / total, 1.0) if total > 0 else np.zeros_like(lost)

    def _solved(self, layer: Linear, left: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return the weight and bias of a layer for what is left of its input."""
        graph = self._structure.graph
        matrix = layer.matrix(graph.weights[layer.weight])
        groups, rows, _, kernel = matrix.shape
        mean = self._statistics.inputs[layer.key].mean.astype(np.float64)
        solved = np.empty((groups, rows, int(left[0].sum()), kernel))
        shift = np.empty((groups, rows))
        for g, covariance in enumerate(self._covariances_of(layer)):
            kept = _columns(np.flatnonzero(left[g]), kernel)
            removed = _columns(np.flatnonzero(~left[g]), kernel)
            weight = matrix[g].reshape(rows, -1)
            change = covariance.recovered(weight[:, removed], kept, removed, self._ridge(layer))
            solved[g] = (weight[:, kept] + change).reshape(rows, -1, kernel)
            shift[g] = weight[:, removed] @ mean[g, removed] - change @ mean[g, kept]
        window = () if layer.window is None else layer.window.kernel
        found = {layer.weight: layer.array(solved, window)}
        if layer.bias is not None:
            found[layer.bias.name] = shifted_bias(layer, graph.weights, shift.reshape(-1))
        return found

    def _ridge(self, layer: Linear) -> float:
        found = self._statistics.inputs[layer.key]
        return ridge_of(found.count, found.mean.shape[1])

    def _covariances_of(self, layer: Linear) -> list[Covariance]:
        """Return the covariances of a layer; those of the last input are kept."""
        key = f"{layer.key} {layer.bias is None}"
        if self._covariances is None or self._covariances[0] != key:
            self._covariances = (key, self._statistics.covariances(layer))
        return self._covariances[1]


def shifted_bias(
    layer: Linear, weights: Mapping[str, NDArray[Any]], shift: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the bias of a layer after adding a constant to each product of its rows."""
    assert layer.bias is not None
    given = np.asarray(weights[layer.bias.name], np.float64)
    moved = given.reshape(-1) + layer.scale / layer.bias.scale * shift
    return moved.reshape(given.shape if given.size == len(shift) else -1).astype(np.float32)


def _columns(positions: NDArray[np.int64], kernel: int) -> NDArray[np.int64]:
    """Return the columns of input positions: each takes one for each position of the kernel."""
    return (positions[:, None] * kernel + np.arange(kernel)).reshape(-1)
