"""Sums over parts of an architecture, compiled so that a million take less than a second."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.chains import ChainIndex, with_conditions
from hwsearch.prediction.base import FloatArray
from hwsearch.prediction.steps import encode_steps, step_widths
from hwsearch.restriction import widened
from hwsearch.space import Architectures, SearchSpace

# Below it a table stays in the processor's caches, and float32 holds every position exactly.
_MAX_ENTRIES: Final = 4096
_CHUNK: Final = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A function of the options of a few choices.

    Attributes:
        columns: Positions of the choices, ascending.
        values: (options of the first choice, ..., n_outputs) what it adds.
    """

    columns: tuple[int, ...]
    values: FloatArray


class LookupSum:
    """A sum of terms for every architecture; terms of few choices are joined into one.

    Args:
        space: The search space.
        terms: What is added up, all with the same number of outputs; at least one.

    Attributes:
        space: The search space.
        terms: The joined ones.
        n_outputs: Number of sums.
    """

    def __init__(self, space: SearchSpace, terms: Sequence[Term]) -> None:
        self.space = space
        self.n_outputs = terms[0].values.shape[-1]
        self.terms = _joined(terms, [len(choice.options) for choice in space.choices])
        self._strides = np.zeros((len(space.choices), len(self.terms)), dtype=np.float32)
        self._flat = []
        for number, term in enumerate(self.terms):
            shape = term.values.shape[:-1]
            for place, column in enumerate(term.columns):
                self._strides[column, number] = np.prod(shape[place + 1 :], dtype=np.int64)
            self._flat.append(term.values.reshape(-1, self.n_outputs))

    def __call__(self, archs: Architectures) -> FloatArray:
        """Return the sums, (len(archs), n_outputs).

        Raises:
            InputError: The architectures are of another space.
        """
        self.space.check_own(archs)
        sums = np.zeros((len(archs), self.n_outputs))
        for start in range(0, len(archs), _CHUNK):
            part = archs.indices[start : start + _CHUNK].astype(np.float32)
            places = np.ascontiguousarray((part @ self._strides).T.astype(np.intp))
            for table, rows in zip(self._flat, places, strict=True):
                sums[start : start + _CHUNK] += table.take(rows, axis=0)
        return sums


def step_terms(
    space: SearchSpace, weights: FloatArray, whole: SearchSpace | None = None
) -> list[Term]:
    """Return terms that add up to the weighted columns of `encode_steps`.

    Args:
        space: The search space.
        weights: (n_columns,) or (n_columns, n_outputs).
        whole: The space that the columns are of, where ``space`` is a part of it.
    """
    whole = space if whole is None else whole
    weights = weights.reshape(len(weights), -1)
    terms, first = [], 0
    for choice, width in zip(whole.choices, step_widths(whole), strict=True):
        if choice.name in space.names and width:
            columns = with_conditions(space, [space.names.index(choice.name)])
            part = SearchSpace(space.choices[each] for each in columns)
            shape = tuple(len(each.options) for each in part.choices)
            every = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
            position = whole.names.index(choice.name)
            known = SearchSpace(whole.choices[each] for each in with_conditions(whole, [position]))
            encoded = encode_steps(widened(part.from_indices(every), known))[:, -width:]
            values = encoded @ weights[first : first + width]
            terms.append(Term(columns, values.reshape(*shape, -1)))
        first += width
    return terms


def block_terms(index: ChainIndex, values: FloatArray) -> list[Term]:
    """Return terms that add up values of the blocks of an architecture.

    Args:
        index: The blocks of the space.
        values: (n_specs, n_outputs) of every block spec.

    Returns:
        One for each place. Options that no architecture has give NaN.
    """
    width = values.shape[1]
    by_number = np.concatenate([values, np.full((1, width), np.nan), np.zeros((1, width))])
    return [
        Term(columns, by_number[table])
        for columns, table in zip(index.deciding, index.tables, strict=True)
    ]


def _joined(terms: Sequence[Term], n_options: Sequence[int]) -> list[Term]:
    joined: list[Term] = []
    for term in sorted(terms, key=lambda each: (-each.values.size, each.columns)):
        for number, other in enumerate(joined):
            columns = tuple(sorted({*term.columns, *other.columns}))
            entries = int(np.prod([n_options[column] for column in columns], dtype=np.float64))
            if columns == other.columns or entries <= _MAX_ENTRIES:
                values = _spread(term, columns) + _spread(other, columns)
                joined[number] = Term(columns, values)
                break
        else:
            joined.append(term)
    return joined


def _spread(term: Term, columns: tuple[int, ...]) -> NDArray[np.float64]:
    """A term's values with a further axis of length 1 for every column that it lacks."""
    sizes = iter(term.values.shape)
    shape = [next(sizes) if column in term.columns else 1 for column in columns]
    return term.values.reshape(*shape, term.values.shape[-1])
