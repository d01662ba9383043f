"""Sums of lookup tables over few choices each: a million architectures in less than a second."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsearch.chains import ChainIndex, with_conditions
from hwsearch.encoding import column_counts, thermometer
from hwsearch.objectives import FloatArray
from hwsearch.restriction import widened
from hwsearch.space import Architectures, SearchSpace

# Up to this size a table fits in CPU caches, and float32 holds every position exactly.
_MAX_ENTRIES: Final = 4096
_CHUNK: Final = 8192


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """A function of the options of a few choices, whose positions are ``columns``, ascending.

    ``values`` has an axis for every choice, then n_outputs.
    """

    columns: tuple[int, ...]
    values: FloatArray


class LookupTableSum:
    """The sum of lookup tables with the same number of outputs; small tables are joined."""

    def __init__(self, space: SearchSpace, tables: Sequence[LookupTable]) -> None:
        self.space = space
        self.n_outputs = tables[0].values.shape[-1]
        self.tables = _joined(tables, [len(choice.options) for choice in space.choices])
        self._strides = np.zeros((len(space.choices), len(self.tables)), dtype=np.float32)
        self._flat = []
        for number, table in enumerate(self.tables):
            shape = table.values.shape[:-1]
            for place, column in enumerate(table.columns):
                self._strides[column, number] = np.prod(shape[place + 1 :], dtype=np.int64)
            self._flat.append(table.values.reshape(-1, self.n_outputs))

    def __call__(self, archs: Architectures) -> FloatArray:
        """Return the sums, (len(archs), n_outputs); raise InputError for another space."""
        self.space.check_own(archs)
        sums = np.zeros((len(archs), self.n_outputs))
        for start in range(0, len(archs), _CHUNK):
            part = archs.indices[start : start + _CHUNK].astype(np.float32)
            places = np.ascontiguousarray((part @ self._strides).T.astype(np.intp))
            for table, rows in zip(self._flat, places, strict=True):
                sums[start : start + _CHUNK] += table.take(rows, axis=0)
        return sums


def thermometer_tables(
    space: SearchSpace, weights: FloatArray, whole: SearchSpace | None = None
) -> list[LookupTable]:
    """Return tables that sum to the columns of `thermometer` times weights (n_columns, ...).

    ``whole`` is the space of the columns where ``space`` is a part of it.
    """
    whole = space if whole is None else whole
    weights = weights.reshape(len(weights), -1)
    tables, first = [], 0
    for choice, width in zip(whole.choices, column_counts(whole), strict=True):
        if choice.name in space.names and width:
            columns = with_conditions(space, [space.names.index(choice.name)])
            part = SearchSpace(space.choices[each] for each in columns)
            shape = tuple(len(each.options) for each in part.choices)
            every = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
            position = whole.names.index(choice.name)
            known = SearchSpace(whole.choices[each] for each in with_conditions(whole, [position]))
            encoded = thermometer(widened(part.from_indices(every), known))[:, -width:]
            values = encoded @ weights[first : first + width]
            tables.append(LookupTable(columns, values.reshape(*shape, -1)))
        first += width
    return tables


def block_tables(index: ChainIndex, values: FloatArray) -> list[LookupTable]:
    """Return tables, one per position, that sum block values (n_specs, n_outputs).

    Options that no architecture has give NaN.
    """
    width = values.shape[1]
    by_number = np.concatenate([values, np.full((1, width), np.nan), np.zeros((1, width))])
    return [
        LookupTable(columns, by_number[table])
        for columns, table in zip(index.deciding, index.tables, strict=True)
    ]


def _joined(tables: Sequence[LookupTable], n_options: Sequence[int]) -> list[LookupTable]:
    joined: list[LookupTable] = []
    for table in sorted(tables, key=lambda each: (-each.values.size, each.columns)):
        for number, other in enumerate(joined):
            columns = tuple(sorted({*table.columns, *other.columns}))
            entries = int(np.prod([n_options[column] for column in columns], dtype=np.float64))
            if columns == other.columns or entries <= _MAX_ENTRIES:
                values = _broadcast(table, columns) + _broadcast(other, columns)
                joined[number] = LookupTable(columns, values)
                break
        else:
            joined.append(table)
    return joined


def _broadcast(table: LookupTable, columns: tuple[int, ...]) -> FloatArray:
    """Return a table's values with an axis of length 1 for every further column."""
    sizes = iter(table.values.shape)
    shape = [next(sizes) if column in table.columns else 1 for column in columns]
    return table.values.reshape(*shape, table.values.shape[-1])
