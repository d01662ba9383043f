"""Architectures as rows of numbers for a regression model; inactive choices carry none.

Every encoding gives each choice a small table with one row per option. An inactive choice reads
a row of zeros, so two assignments of one architecture cannot reach a model as different rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hwsearch.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwsearch.architectures import Architectures
    from hwsearch.choices import Choice

KINDS = ("onehot", "ordinal")


def features(choices: Sequence[Choice], kind: str) -> list[str]:
    """Name the columns of an encoding, in order.

    One column of an option is called ``name=option``, the step of an ordered choice ``name``, and
    a condition ``parent is option or option``.

    Raises:
        InputError: The kind is neither ``"onehot"`` nor ``"ordinal"``.
    """
    return [name for names, _ in _tables(choices, kind) for name in names]


def encode(archs: Architectures, kind: str) -> npt.NDArray[np.float64]:
    """Encode a batch, shape (n, number of features); every value lies in [0, 1], never NaN.

    Raises:
        InputError: The kind is neither ``"onehot"`` nor ``"ordinal"``.
    """
    tables = [table for _, table in _tables(archs.space.choices, kind)]
    encoded = np.empty((len(archs), sum(table.shape[1] for table in tables)))
    column = 0
    for position, table in enumerate(tables):
        inactive = len(table) - 1
        rows = np.where(archs.active[:, position], archs.indices[:, position], inactive)
        encoded[:, column : column + table.shape[1]] = table[rows]
        column += table.shape[1]
    return encoded


def _tables(
    choices: Sequence[Choice], kind: str
) -> list[tuple[list[str], npt.NDArray[np.float64]]]:
    """Names and values (options + 1, features) of every choice; the last row is zero."""
    if kind == "onehot":
        return [_onehot(choice) for choice in choices]
    if kind != "ordinal":
        raise unknown("encoding", kind, KINDS)
    conditions: set[tuple[str, frozenset[object]]] = set()
    tables = []
    for choice in choices:
        names, table = _ordinal(choice) if choice.ordered else _onehot(choice)
        if choice.active is not None:
            condition = (choice.active[0], frozenset(choice.active[1]))
            if condition not in conditions:  # its siblings would only repeat the same column
                names = [choice.condition, *names]
                indicator = np.append(np.ones(len(choice.options)), 0.0)
                table = np.column_stack([indicator, table])
            conditions.add(condition)
        tables.append((names, table))
    return tables


def _onehot(choice: Choice) -> tuple[list[str], npt.NDArray[np.float64]]:
    n_options = len(choice.options)
    return [f"{choice.name}={option!r}" for option in choice.options], np.eye(
        n_options + 1, n_options
    )


def _ordinal(choice: Choice) -> tuple[list[str], npt.NDArray[np.float64]]:
    n_options = len(choice.options)
    if n_options == 1:
        return [], np.zeros((2, 0))
    return [choice.name], np.append(np.linspace(0.0, 1.0, n_options), 0.0)[:, np.newaxis]
