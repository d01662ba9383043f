"""Least squares for the change of a layer, from rows of its input and wanted outputs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
# Of one convolution group each: (groups, rows or columns, columns). The ridge keeps systems well
# conditioned, so that float32 is enough.
Stack = NDArray[np.float32]
# Tried on held-out samples, relative to the mean variance of a column. The next one of the better
# side of the middle is tried first, and the other side only if that is worse.
RIDGES = (0.1, 1.0, 10.0)
_KEPT_BYTES = 16 * 2**20  # of a factor, for other layers that read the same rows


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Change:
    """What is added to a layer.

    Attributes:
        weight: (convolution groups, rows, columns).
        constant: (convolution groups * rows,); zeros if it was not asked for.
        ridge: The strength that was chosen; infinite if no change predicts better.
    """

    weight: Matrix
    constant: Matrix
    ridge: float


class Regression:
    """Ridge regression of what layers that read the same rows lack.

    The strength is the one of `RIDGES` that predicts held-out samples best, by two-fold
    cross-validation. Systems are as large as the smaller of the number of columns and of rows.
    """

    def __init__(self, read: Stack, first: int, *, centred: bool) -> None:
        """Take the rows that layers read.

        Args:
            read: (n, convolution groups, columns); it is changed.
            first: Rows of the first fold, which come before the others.
            centred: Whether the layers have a constant, which is solved too.
        """
        self._mean = np.zeros(read.shape[1:], np.float32)
        if centred:
            self._mean = _mean(read)
            read -= self._mean
        self._centred = centred
        x = read.transpose(1, 0, 2)
        folds = (x[:, :first], x[:, first:]) if 0 < first < len(read) else ()
        form = _Rows if len(read) < read.shape[2] else _Columns
        self._form = form(folds) if folds else None

    def change(self, wanted: NDArray[np.float32], weight: Matrix) -> Change:
        """Return the change of a weight that brings its outputs nearest to those wanted.

        Args:
            wanted: (n, outputs), outputs by convolution group; it is changed.
            weight: (convolution groups, rows, columns).
        """
        groups, rows, _ = weight.shape
        mean = np.zeros(wanted.shape[1], np.float32)
        if self._centred:
            mean = _mean(wanted)
            wanted -= mean
        ridge, found = np.inf, None
        if self._form is not None:
            y = wanted.reshape(len(wanted), groups, rows).transpose(1, 0, 2)
            ridge, found = self._form.solved(y, weight.astype(np.float32))
        change = np.zeros(weight.shape) if found is None else found.astype(np.float64)
        constant = mean.reshape(groups, rows) - np.einsum(
            "grc,gc->gr", weight + change, self._mean
        )
        if not self._centred:
            constant[:] = 0
        return Change(weight=change, constant=constant.reshape(-1), ridge=ridge)


class _Form(ABC):
    """Two folds of rows, and the systems of their least squares."""

    @abstractmethod
    def loss(self, fold: int, ridge: float) -> float:
        """Return |lacking - x D|^2 of a fold, less a constant, D solved on the other one."""

    @abstractmethod
    def whole(self, ridge: float) -> Stack:
        """Return D' of all rows: (groups, rows, columns)."""

    @abstractmethod
    def take(self, y: Stack, weight: Stack) -> None:
        """Prepare for what a layer lacks: y - x W'."""

    def solved(self, y: Stack, weight: Stack) -> tuple[float, Stack | None]:
        """Return the best ridge and the change of a weight, None if no change is better."""
        self.take(y, weight)
        low, middle, high = RIDGES
        losses = {ridge: self.loss(0, ridge) + self.loss(1, ridge) for ridge in (middle, high)}
        if losses[middle] <= losses[high]:
            losses[low] = self.loss(0, low) + self.loss(1, low)
        ridge = min(losses, key=lambda each: losses[each])
        # No change has the loss 0.
        return (ridge, self.whole(ridge)) if losses[ridge] < 0 else (np.inf, None)


class _Columns(_Form):
    """D = (X'X + l I)^-1 X'y."""

    def __init__(self, folds: tuple[Stack, ...]) -> None:
        self._folds = folds
        self._squares = [_squared(x) for x in folds]
        self._products: list[Stack] = []
        self._factors: dict[tuple[int, float], Stack] = {}

    def take(self, y: Stack, weight: Stack) -> None:
        self._products, start = [], 0
        for x, square in zip(self._folds, self._squares, strict=True):
            own = y[:, start : start + x.shape[1]]
            start += x.shape[1]
            # Transposed, which is the order in memory that LAPACK takes.
            product = own.transpose(0, 2, 1) @ x
            product -= weight @ square
            self._products.append(product)

    def loss(self, fold: int, ridge: float) -> float:
        found = self._solve(1 - fold, self._squares[1 - fold], self._products[1 - fold], ridge)
        return float(np.vdot(found, found @ self._squares[fold] - 2 * self._products[fold]))

    def whole(self, ridge: float) -> Stack:
        products = self._products[0] + self._products[1]
        return self._solve(-1, self._squares[0] + self._squares[1], products, ridge)

    def _solve(self, which: int, square: Stack, product: Stack, ridge: float) -> Stack:
        """Return ((square + l I)^-1 product')' of each convolution group."""
        factor = self._factors.get((which, ridge))
        if factor is None:
            factor = _factor(square, ridge, square.shape[1])
            if factor.nbytes <= _KEPT_BYTES:
                self._factors[which, ridge] = factor
        return _solved(factor, product)


class _Rows(_Form):
    """D = X'(XX' + l I)^-1 y."""

    def __init__(self, folds: tuple[Stack, ...]) -> None:
        self._folds, self._x = folds, np.concatenate(folds, axis=1)
        self._first = folds[0].shape[1]
        self._kernel = self._x @ self._x.transpose(0, 2, 1)
        self._y: Stack = self._kernel[:, :0]

    def take(self, y: Stack, weight: Stack) -> None:
        self._y = y.transpose(0, 2, 1) - weight @ self._x.transpose(0, 2, 1)

    def loss(self, fold: int, ridge: float) -> float:
        parts = (slice(None, self._first), slice(self._first, None))
        own, rest = parts[fold], parts[1 - fold]
        factor = _factor(self._kernel[:, rest, rest], ridge, self._x.shape[2])
        predicted = _solved(factor, self._y[:, :, rest]) @ self._kernel[:, rest, own]
        return float(np.vdot(predicted, predicted - 2 * self._y[:, :, own]))

    def whole(self, ridge: float) -> Stack:
        factor = _factor(self._kernel, ridge, self._x.shape[2])
        found: Stack = _solved(factor, self._y) @ self._x
        return found


def _squared(x: Stack) -> Stack:
    """Return x'x of each convolution group."""
    if len(x) == 1:  # a product of a matrix by itself takes half the time, but not in a stack
        found: Stack = (x[0].T @ x[0])[None]
    else:
        found = x.transpose(0, 2, 1) @ x
    return found


def _factor(square: Stack, ridge: float, columns: int) -> Stack:
    """Return square + l I, or its Cholesky factor; l is relative to the mean variance.

    The systems of more than one convolution group are small, and solved as they are.
    """
    level = np.float32(ridge / columns) * np.trace(square, axis1=1, axis2=2)
    system = square.copy()
    every = np.arange(system.shape[1])
    system[:, every, every] += np.where(level > 0, level, np.float32(1))[:, None]
    if len(system) == 1:  # the transposed view is in the order in memory that LAPACK takes
        _, info = scipy.linalg.lapack.spotrf(
            system[0].T, lower=True, clean=False, overwrite_a=True
        )
        if info:  # rows are not finite: nothing is found to be better
            system[:] = np.nan
    return system


def _solved(factor: Stack, right: Stack) -> Stack:
    """Return (system^-1 right')' of each convolution group, for right (rows, columns)."""
    if len(factor) > 1:
        found: Stack = np.linalg.solve(factor, right.transpose(0, 2, 1)).transpose(0, 2, 1)
        return found
    solved, _ = scipy.linalg.lapack.spotrs(factor[0].T, right[0].T, lower=True)
    return np.asarray(solved).T[None]


def _mean(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the first axis, as a product, which is fast."""
    flat = rows.reshape(len(rows), -1)
    share = np.full(len(rows), 1 / len(rows), np.float32)
    found: NDArray[np.float32] = (share @ flat).reshape(rows.shape[1:])
    return found
