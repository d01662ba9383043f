"""Removal of inputs of a linear layer one block at a time: optimal brain surgeon.

Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS
1992. A block of columns c of a weight W costs tr(W_c (H_cc)^-1 W_c') with H = (S + l I)^-1: what
the outputs lose of their variance if the other columns take over what they can. Its removal
changes W by -W_c (H_cc)^-1 H_c: and H by -H_:c (H_cc)^-1 H_c:.
"""

from typing import Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from hwsearch.elastic.repair.covariance import (
    Columns,
    Covariance,
    Dense,
    Factored,
    Matrix,
    cholesky,
)

_SKETCH = 256  # rows


class Elimination(Protocol):
    """A layer that loses blocks of its input; blocks are numbered as at the beginning."""

    def costs(self) -> Matrix:
        """Return the cost of each block that remains, in order."""

    def remove(self, blocks: NDArray[np.int64]) -> None:
        """Remove blocks, numbered among those that remain."""


def elimination(
    covariance: Covariance, weight: Matrix, blocks: Columns, ridge: float
) -> Elimination | None:
    """Return the elimination of a layer, or None if its input does not vary.

    Args:
        covariance: Of the layer's input.
        weight: (rows, columns); costs are in its unit.
        blocks: (blocks, width): columns that a unit takes.
        ridge: l, relative to the mean variance of a column.
    """
    level = ridge * covariance.mean_diagonal(np.arange(covariance.size))
    if level <= 0:
        return None
    if isinstance(covariance, Factored):
        return _Rows(covariance.rows, weight, blocks, level)
    assert isinstance(covariance, Dense)
    return _Inverse(covariance.matrix, weight, blocks, level)


class _Inverse:
    """With the inverse H of a covariance, of the columns of the blocks only."""

    def __init__(self, covariance: Matrix, weight: Matrix, blocks: Columns, level: float) -> None:
        self._width = blocks.shape[1]
        columns = blocks.reshape(-1)
        self._h = _inverse(covariance, level)[np.ix_(columns, columns)]
        self._w = weight[:, columns]
        if len(self._w) > len(columns):  # the costs depend on W'W alone
            self._w = scipy.linalg.qr(self._w, mode="r", check_finite=False)[0][: len(columns)]

    def costs(self) -> Matrix:
        """Return tr(W_c (H_cc)^-1 W_c') of each block."""
        n = self._h.shape[0] // self._width
        found: Matrix
        if self._width == 1:
            found = np.square(self._w).sum(axis=0) / self._h.diagonal()
            return found
        every = np.arange(n)
        own = self._h.reshape(n, self._width, n, self._width)[every, :, every]
        w = self._w.reshape(-1, n, self._width).transpose(1, 2, 0)
        found = np.einsum("nij,nij->n", np.linalg.solve(own, w), w)
        return found

    def remove(self, blocks: NDArray[np.int64]) -> None:
        """Update W and H, and forget the blocks."""
        n = self._h.shape[0] // self._width
        out = np.zeros(n, bool)
        out[blocks] = True
        gone, rest = (np.flatnonzero(np.repeat(m, self._width)) for m in (out, ~out))
        across = self._h[np.ix_(gone, rest)]
        factor = scipy.linalg.cholesky(self._h[np.ix_(gone, gone)], lower=True, check_finite=False)
        half = scipy.linalg.solve_triangular(factor, across, lower=True, check_finite=False)
        weight = scipy.linalg.solve_triangular(factor, self._w[:, gone].T, lower=True)
        self._h = self._h[np.ix_(rest, rest)]
        self._h -= half.T @ half
        self._w = self._w[:, rest] - weight.T @ half


class _Rows:
    """With the rows X of an input that has more columns than rows.

    With A'A = X'(XX' + l I)^-1 X, it is H = (I - A'A) / l.
    """

    def __init__(self, rows: Matrix, weight: Matrix, blocks: Columns, level: float) -> None:
        self._rows, self._weight, self._level = rows, _sketched(weight), level
        self._blocks = blocks
        self._product = rows @ rows.T
        self._lacking = np.zeros((len(rows), len(self._weight)))  # X_R W_R', of what was removed

    def costs(self) -> Matrix:
        """Return tr(W_c (H_cc)^-1 W_c') of each block, W with its changes so far."""
        columns = self._blocks.reshape(-1)
        lower = cholesky(self._product, self._level)
        right = np.hstack([self._rows[:, columns], self._lacking])
        solved = scipy.linalg.solve_triangular(lower, right, lower=True, check_finite=False)
        n, width = self._blocks.shape
        a = solved[:, : len(columns)].reshape(-1, n, width).transpose(1, 0, 2)
        taken = (solved[:, len(columns) :].T @ solved[:, : len(columns)]).reshape(-1, n, width)
        w = (self._weight[:, columns].reshape(-1, n, width) + taken).transpose(1, 2, 0)
        own = (np.eye(width) - a.transpose(0, 2, 1) @ a) / self._level
        found: Matrix = np.einsum("nij,nij->n", np.linalg.solve(own, w), w)
        return found

    def remove(self, blocks: NDArray[np.int64]) -> None:
        """Take the columns of blocks out of XX'."""
        columns = self._blocks[blocks].reshape(-1)
        gone = self._rows[:, columns]
        self._product -= gone @ gone.T
        self._lacking += gone @ self._weight[:, columns].T
        self._blocks = np.delete(self._blocks, blocks, axis=0)


def _sketched(weight: Matrix) -> Matrix:
    """Return random sums of a weight's rows, if it has many; tr(W A W') is nearly the same."""
    if len(weight) <= 2 * _SKETCH:
        return weight
    mix = np.random.default_rng(0).standard_normal((_SKETCH, len(weight)))
    found: Matrix = mix @ weight / np.sqrt(_SKETCH)
    return found


def _inverse(covariance: Matrix, level: float) -> Matrix:
    lower = cholesky(covariance, level)
    half, _ = scipy.linalg.lapack.dpotri(lower, lower=True, overwrite_c=True)
    inverse: Matrix = np.tril(half)
    inverse += np.tril(inverse, -1).T
    return inverse
