"""Least squares for the change of a layer, from rows of its input and wanted outputs."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Rows = NDArray[np.float32]  # (convolution groups, n, columns); products of them in float64 below
# Tried on held-out samples, relative to the mean variance of a column.
RIDGES = (0.1, 1.0, 10.0)
_FOLDS = 2


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Change:
    """What is added to a layer.

    Attributes:
        weight: (convolution groups, rows, columns).
        constant: (convolution groups * rows,); zeros if it was not asked for.
        ridge: The strength that was chosen.
    """

    weight: Matrix
    constant: Matrix
    ridge: float


def solve(
    read: Rows,
    wanted: Rows,
    weight: Matrix,
    samples: NDArray[np.int64],
    *,
    centred: bool,
) -> Change:
    """Return the change of a weight that brings its outputs nearest to those wanted.

    It is ridge regression of what the outputs lack; the strength is the one of `RIDGES` that
    predicts held-out samples best, by two-fold cross-validation. The rows of one sample are
    alike, so they are held out together.

    Args:
        read: (n, convolution groups, columns).
        wanted: (n, outputs), outputs by convolution group.
        weight: (convolution groups, rows, columns).
        samples: (n,): sample of each row.
        centred: Whether the layer has a constant, which is solved too.
    """
    groups, rows, columns = weight.shape
    x = read.transpose(1, 0, 2)
    y = wanted.reshape(len(wanted), groups, rows).transpose(1, 0, 2)
    lacking = y - x @ weight.astype(np.float32).transpose(0, 2, 1)
    mean_x, mean_y = np.zeros((groups, 1, columns)), np.zeros((groups, 1, rows))
    if centred:
        mean_x, mean_y = (a.mean(axis=1, keepdims=True, dtype=np.float64) for a in (x, lacking))
        x, lacking = x - mean_x.astype(np.float32), lacking - mean_y.astype(np.float32)
    folds = np.unique(samples, return_inverse=True)[1] % _FOLDS
    ridge, change = np.inf, np.zeros((groups, rows, columns))
    if folds.any():  # of two samples at least
        ridge, change = (_dual if len(read) < columns else _primal)(x, lacking, folds)
    constant = mean_y[:, 0] - np.einsum("grc,gc->gr", change, mean_x[:, 0])
    return Change(weight=change, constant=constant.reshape(-1), ridge=ridge)


def _primal(x: Rows, y: Rows, folds: NDArray[np.int64]) -> tuple[float, Matrix]:
    """Solve systems as large as the number of columns."""
    squares, products = [], []
    for fold in range(_FOLDS):
        own, out = x[:, folds == fold], y[:, folds == fold]
        squares.append(_squared(own))
        products.append((own.transpose(0, 2, 1) @ out).astype(np.float64))
    losses = np.zeros(len(RIDGES))
    for fold in range(_FOLDS):
        others = [f for f in range(_FOLDS) if f != fold]
        square, product = (np.sum([a[f] for f in others], axis=0) for a in (squares, products))
        for at, ridge in enumerate(RIDGES):
            found = _solved(square, product, ridge)
            # |y - x D|^2 without |y|^2, which is the same for every ridge
            losses[at] += np.vdot(found, squares[fold] @ found - 2 * products[fold])
    ridge = RIDGES[int(losses.argmin())]
    if losses.min() >= 0:  # nothing predicts better than no change
        return np.inf, np.zeros((len(x), y.shape[2], x.shape[2]))
    return ridge, _solved(np.sum(squares, axis=0), np.sum(products, axis=0), ridge).transpose(
        0, 2, 1
    )


def _dual(x: Rows, y: Rows | Matrix, folds: NDArray[np.int64]) -> tuple[float, Matrix]:
    """Solve systems as large as the number of rows: D = X'(XX' + l I)^-1 Y."""
    kernel = _squared(x.transpose(0, 2, 1))
    y = y.astype(np.float64)
    losses = np.zeros(len(RIDGES))
    for fold in range(_FOLDS):
        rest, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inside = kernel[:, rest[:, None], rest]
        for at, ridge in enumerate(RIDGES):
            found = _solved(inside, y[:, rest], ridge, x.shape[2])
            predicted = kernel[:, own[:, None], rest] @ found
            losses[at] += np.vdot(predicted, predicted - 2 * y[:, own])
    ridge = RIDGES[int(losses.argmin())]
    if losses.min() >= 0:
        return np.inf, np.zeros((len(x), y.shape[2], x.shape[2]))
    solved = _solved(kernel, y, ridge, x.shape[2])
    return ridge, (x.transpose(0, 2, 1) @ solved).transpose(0, 2, 1)


def _squared(x: Rows) -> Matrix:
    """Return x'x of each convolution group."""
    if len(x) == 1:  # a product of a matrix by itself takes half the time, but not in a stack
        found: Matrix = (x[0].T @ x[0]).astype(np.float64)[None]
    else:
        found = (x.transpose(0, 2, 1) @ x).astype(np.float64)
    return found


def _solved(square: Matrix, product: Matrix, ridge: float, columns: int = 0) -> Matrix:
    """Return (square + l I)^-1 product of each convolution group; l is relative to the mean."""
    size = square.shape[1]
    level = ridge * np.trace(square, axis1=1, axis2=2) / (columns or size)
    system = square + np.where(level > 0, level, 1.0)[:, None, None] * np.eye(size)
    found = np.empty_like(product)
    if len(square) > 1:
        found[:] = np.linalg.solve(system, product)
    else:
        found[0] = scipy.linalg.solve(system[0], product[0], assume_a="pos", overwrite_a=True)
    return found
