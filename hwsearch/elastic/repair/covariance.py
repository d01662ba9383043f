"""Covariance of a layer's input, and least squares with it: as a matrix, or as its samples.

A layer with more columns than rows were seen keeps the rows X; with S = X'X and the identity
X (X'X + l I)^-1 = (XX' + l I)^-1 X its systems are as small as the number of rows.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Columns = NDArray[np.int64]
_NUMBERS = 32  # of kept blocks, that what is lost is solved for


class Covariance(Protocol):
    """Covariance S (columns, columns) of the columns of an input."""

    size: int

    def mean_diagonal(self, columns: Columns) -> float:
        """Return the mean variance of some columns."""

    def energy(self, weight: Matrix) -> float:
        """Return tr(W S W'), the variance of the outputs of a weight (rows, columns)."""

    def recovered(self, weight: Matrix, kept: Columns, removed: Columns, ridge: float) -> Matrix:
        """Return W_R S_RK (S_KK + l I)^-1 (rows, kept) of a weight (rows, removed)."""

    def lost(
        self, weight: Matrix, kept: Columns, blocks: Sequence[Columns], ridge: float
    ) -> Matrix:
        """Return the energy that least squares cannot recover.

        Args:
            weight: (rows, columns).
            kept: Columns that stay.
            blocks: Columns of the units, most important first.
            ridge: l, relative to the mean variance of all columns.

        Returns:
            (blocks + 1,): with the first 0, 1, ... blocks kept.
        """


class Dense:
    """A covariance as a matrix."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.size = len(matrix)

    def mean_diagonal(self, columns: Columns) -> float:
        """Return the mean variance of some columns."""
        return float(self.matrix.diagonal()[columns].mean()) if len(columns) else 0.0

    def energy(self, weight: Matrix) -> float:
        """Return tr(W S W')."""
        return float(np.vdot(weight @ self.matrix, weight))

    def recovered(self, weight: Matrix, kept: Columns, removed: Columns, ridge: float) -> Matrix:
        """Return W_R S_RK (S_KK + l I)^-1."""
        level = ridge * self.mean_diagonal(kept)
        if level <= 0:
            return np.zeros((len(weight), len(kept)))
        rows = self.matrix[kept]
        lower = cholesky(rows[:, kept], level)
        right = rows[:, removed] @ weight.T
        found: Matrix = scipy.linalg.cho_solve((lower, True), right, check_finite=False)
        return found.T

    def lost(
        self, weight: Matrix, kept: Columns, blocks: Sequence[Columns], ridge: float
    ) -> Matrix:
        """Return the energy that least squares cannot recover, of every number of blocks kept.

        With the columns in this order and S = LL', what the first k columns leave of S is the
        rest of L times its transpose: the energy is that of the columns of W L behind k.
        """
        order = np.concatenate([kept, *blocks])
        energies = np.zeros(len(blocks) + 1)
        level = ridge * self.mean_diagonal(order)
        if level <= 0:
            return energies
        lower = cholesky(self.matrix[np.ix_(order, order)], level)
        of_column: Matrix = np.square(weight[:, order] @ lower).sum(axis=0)
        behind = np.append(np.cumsum(of_column[::-1])[::-1], 0.0)
        starts = len(kept) + np.cumsum([0, *map(len, blocks)])
        found: Matrix = behind[starts]
        return found


class Factored:
    """A covariance X'X as the rows X (rows, columns)."""

    def __init__(self, rows: Matrix) -> None:
        self.rows = rows
        self.size = rows.shape[1]

    def mean_diagonal(self, columns: Columns) -> float:
        """Return the mean variance of some columns."""
        found = self.rows[:, columns]
        return float(np.vdot(found, found)) / len(columns) if len(columns) else 0.0

    def energy(self, weight: Matrix) -> float:
        """Return tr(W S W')."""
        return float(np.square(self.rows @ weight.T).sum())

    def recovered(self, weight: Matrix, kept: Columns, removed: Columns, ridge: float) -> Matrix:
        """Return W_R S_RK (S_KK + l I)^-1."""
        level = ridge * self.mean_diagonal(kept)
        if level <= 0:
            return np.zeros((len(weight), len(kept)))
        rows = self.rows[:, kept]
        lacking = self.rows[:, removed] @ weight.T
        return _solve(rows @ rows.T, level, lacking).T @ rows

    def lost(
        self, weight: Matrix, kept: Columns, blocks: Sequence[Columns], ridge: float
    ) -> Matrix:
        """Return the energy that least squares cannot recover, of every number of blocks kept.

        The least of |M - D X|^2 + l |D|^2 over D is l tr(M (XX' + l I)^-1 M').
        """
        energies = np.zeros(len(blocks) + 1)
        level = ridge * self.mean_diagonal(np.concatenate([kept, *blocks]))
        if level <= 0:
            return energies
        # Each number of blocks needs a system of its own: some are solved, others interpolated.
        counts = np.unique(np.linspace(0, len(blocks), _NUMBERS + 1).astype(int))
        rows = self.rows[:, kept]
        product = rows @ rows.T
        lacking = sum((self.rows[:, b] @ weight[:, b].T for b in blocks), np.zeros(()))
        squares = sum(float(np.square(weight[:, b]).sum()) for b in blocks)
        for start, end in pairwise(counts):
            solved = _solve(product, level, lacking)
            energies[start] = level * (float(np.vdot(lacking, solved)) + squares)
            columns = np.concatenate(blocks[start:end])
            product += self.rows[:, columns] @ self.rows[:, columns].T
            lacking = lacking - self.rows[:, columns] @ weight[:, columns].T
            squares -= float(np.square(weight[:, columns]).sum())
        found: Matrix = np.interp(np.arange(len(energies)), counts, energies[counts])
        return found


def cholesky(matrix: Matrix, level: float) -> Matrix:
    """Return lower L of a covariance with a ridge, LL' = matrix + level I.

    A covariance that was rounded to float32 may have eigenvalues below zero: if they are beyond
    the ridge, it grows.
    """
    while True:
        system = matrix.copy()
        system[np.diag_indices(len(system))] += level
        try:
            lower: Matrix = scipy.linalg.cholesky(
                system, lower=True, overwrite_a=True, check_finite=False
            )
        except np.linalg.LinAlgError:
            if not level <= np.abs(matrix).sum():  # no ridge helps: it is not finite
                raise
            level *= 10
        else:
            return lower


def _solve(product: Matrix, level: float, right: Matrix) -> Matrix:
    """Return (product + level I)^-1 right."""
    system = product.copy()
    system[np.diag_indices(len(system))] += level
    found: Matrix = scipy.linalg.solve(system, right, assume_a="pos", overwrite_a=True)
    return found
