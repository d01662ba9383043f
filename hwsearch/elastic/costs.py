"""MACs and parameters of many subnets at once, equal to counting in their files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.liveness import live_nodes, removables
from hwsearch.elastic.graph import Structure, Work
from hwsearch.elastic.selection import Selections

_ROWS = 16_384  # architectures counted together: their arrays stay in the processor's cache
_BF16 = "bfloat16"  # NumPy takes it for an unknown kind


class Costs:
    """MACs and parameters of the subnets of a structure.

    Each node or weight costs the product of some axes; groups shrink these axes, and a node that
    no output needs costs nothing.
    """

    def __init__(
        self, structure: Structure, macs_by_size: Sequence[Mapping[str, int]] = ()
    ) -> None:
        """Prepare the counts.

        Args:
            structure: What is counted.
            macs_by_size: For each input size of the search space, node -> its MACs in the whole
                model; empty for the size that was analysed alone.
        """
        self._structure, self._parts = structure, removables(structure)
        columns = {group.name: column for column, group in enumerate(structure.groups)}
        rows = {node.name: row for row, node in enumerate(structure.graph.proto.graph.node)}
        self._macs = [
            _Product.of(rows[work.node], work, columns, macs_by_size) for work in structure.work
        ]
        self._params = _weight_products(structure, columns)
        self._full = np.array([group.size for group in structure.groups], np.int64)

    def macs(self, selections: Selections) -> NDArray[np.int64]:
        """Return the multiply-accumulates for one sample: (n,)."""
        return self._sums(self._macs, selections)

    def params(self, selections: Selections) -> NDArray[np.int64]:
        """Return the floating-point numbers in the file: (n,)."""
        return self._sums(self._params, selections)

    def _sums(self, products: Sequence["_Product"], selections: Selections) -> NDArray[np.int64]:
        live, of_set = self._live(selections.dropped)
        total = np.zeros(len(selections), np.int64)
        for begin in range(0, len(selections), _ROWS):
            part = slice(begin, begin + _ROWS)
            removed = (self._full - selections.units[part]).T.copy()
            sizes, sets = selections.sizes[part], of_set[part]
            for product in products:
                column = live[:, product.row]
                if not column.any():
                    continue
                value = product.value(removed, sizes)
                total[part] += value if column.all() else value * column[sets]
        return total

    def _live(self, dropped: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return (sets, nodes), and for each architecture its set of dropped parts."""
        packed = np.packbits(dropped, axis=1)
        _, first, of_set = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        graph = self._structure.graph.proto.graph
        return live_nodes(graph, self._parts, dropped[first]), of_set.reshape(-1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Product:
    """A cost: a constant times the remaining sizes of axes.

    Attributes:
        row: The node that has to be live.
        rests: For each input size, the cost divided by the axes' full sizes.
        axes: Full size, and column of a group -> positions of a unit, of each axis.
        exact: Whether the division leaves no remainder.
    """

    row: int
    rests: NDArray[np.int64] | NDArray[np.float64]
    axes: tuple[tuple[int, Mapping[int, int]], ...]

    @classmethod
    def of(
        cls,
        row: int,
        work: Work,
        columns: Mapping[str, int],
        macs_by_size: Sequence[Mapping[str, int]],
    ) -> "_Product":
        """Return the MACs of a node."""
        axes = tuple(
            (size, {columns[name]: width for name, width in widths.items()})
            for size, widths in work.factors
        )
        macs = [counted.get(work.node, 0) for counted in macs_by_size] or [work.macs]
        return cls(row=row, rests=_divided(macs, axes), axes=axes)

    def value(self, removed: NDArray[np.int64], sizes: NDArray[np.int64]) -> Any:
        """Return the costs of n architectures: (n,) int64, or a single one for all of them.

        Args:
            removed: (groups, n): removed units.
            sizes: (n,): position of the input size.
        """
        found: Any = self.rests[sizes] if len(self.rests) > 1 else self.rests[0]
        for size, widths in self.axes:
            left = size - sum(width * removed[column] for column, width in widths.items())
            found = found * left
        if self.rests.dtype.kind == "f":
            found = np.rint(found).astype(np.int64)
        return found


def _divided(
    costs: Sequence[int], axes: Sequence[tuple[int, Mapping[int, int]]]
) -> NDArray[np.int64] | NDArray[np.float64]:
    """Return the costs divided by the sizes of axes, as integers where nothing remains."""
    whole = math.prod(size for size, _ in axes)
    if all(cost % whole == 0 for cost in costs):
        return np.array([cost // whole for cost in costs], np.int64)
    return np.array(costs, np.float64) / whole


def _weight_products(structure: Structure, columns: Mapping[str, int]) -> list[_Product]:
    """Return the numbers in each floating-point weight."""
    axes: dict[str, dict[int, dict[int, int]]] = {}
    for group in structure.groups:
        for slot in group.slots:
            own = axes.setdefault(slot.weight, {}).setdefault(slot.axis, {})
            column = columns[group.name]
            own[column] = own.get(column, 0) + slot.positions.shape[1]
    found = []
    for row, node in enumerate(structure.graph.proto.graph.node):
        for name in node.input:
            weight = structure.graph.weights.get(name)
            if weight is not None and (weight.dtype.kind == "f" or weight.dtype.name == _BF16):
                own_axes = tuple(
                    (weight.shape[axis], widths) for axis, widths in axes.get(name, {}).items()
                )
                rests = _divided([weight.size], own_axes)
                found.append(_Product(row=row, rests=rests, axes=own_axes))
    return found
