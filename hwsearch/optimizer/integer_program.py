"""Integer programmes over a search space: the best architecture of an additive model, exactly."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.objectives import FloatArray
from hwsearch.space import Architectures, SearchSpace

_OPTIONS: Final = {
    "mip_rel_gap": 1e-4,  # what is that near to the optimum counts as it
    "node_limit": 2000,  # bounds the effort without a clock, so that it is the same everywhere
}


@dataclass(frozen=True, slots=True)
class Bound:
    """``weights @ terms <= limit`` for the terms of an architecture."""

    weights: FloatArray
    limit: float


class Programme:
    """Terms of architectures, and the search for those with the least sum of weighted terms.

    The terms are 0/1 variables: one for each option of each choice (1 where the choice is active
    and has it), then one for each combination of the options of the paired choices. Conditions
    are linear: the options of a choice sum to 1 where it is active and to 0 where it is not.

    Args:
        space: The search space.
        pairs: Positions of choices whose combinations have terms of their own.
    """

    def __init__(self, space: SearchSpace, pairs: Sequence[tuple[int, int]] = ()) -> None:
        self.space = space
        self.pairs = tuple(pairs)
        self._widths = [len(choice.options) for choice in space.choices]
        self._starts = np.cumsum([0, *self._widths])
        self.n_options = int(self._starts[-1])
        self.n_terms = self.n_options + sum(
            self._widths[a] * self._widths[b] for a, b in self.pairs
        )
        self._rows: list[FloatArray] = []
        self._low: list[float] = []
        self._high: list[float] = []
        for position in range(len(space.choices)):
            self._add_condition(position)
        first = self.n_options
        for a, b in self.pairs:
            self._add_pair(a, b, first)
            first += self._widths[a] * self._widths[b]

    def terms(self, archs: Architectures) -> FloatArray:
        """The 0/1 terms of architectures, ``(n, n_terms)``."""
        onehot = self.space.encode(archs, "onehot")
        columns = [onehot]
        for a, b in self.pairs:
            left, right = onehot[:, self._options(a)], onehot[:, self._options(b)]
            columns.append((left[:, :, np.newaxis] * right[:, np.newaxis]).reshape(len(archs), -1))
        return np.concatenate(columns, axis=1)

    def minimise(
        self, weights: FloatArray, bounds: Sequence[Bound], without: Architectures
    ) -> Architectures | None:
        """Find the architecture with the least ``weights @ terms`` within the bounds.

        By HiGHS, to a relative gap of 0.01%.

        Args:
            weights: ``(n_terms,)``.
            bounds: What to keep.
            without: Architectures that it must not be, each cut off by an inequality of its own.

        Returns:
            One architecture, or None where nothing is left within the bounds.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        onehot = self.space.encode(without, "onehot")
        cuts = np.zeros((len(without), self.n_terms))
        cuts[:, : self.n_options] = onehot
        units = [float(np.abs(bound.weights).max()) or 1.0 for bound in bounds]
        limits = [bound.limit / unit for bound, unit in zip(bounds, units, strict=True)]
        scaled = [bound.weights / unit for bound, unit in zip(bounds, units, strict=True)]
        rows = [*self._rows, *scaled, *cuts]
        low = [*self._low, *[-np.inf] * (len(bounds) + len(cuts))]
        high = [*self._high, *limits, *(onehot.sum(axis=1) - 1.0)]
        with _kept_off_stdout():
            found = milp(
                weights,
                integrality=np.ones(self.n_terms),  # of pairs too: HiGHS is faster so
                bounds=Bounds(0.0, 1.0),
                constraints=LinearConstraint(csr_array(np.array(rows)), low, high),
                options=_OPTIONS,
            )
        return None if found.x is None else self._architecture(found.x)

    def _architecture(self, x: FloatArray) -> Architectures:
        chosen = [int(np.argmax(x[self._options(p)])) for p in range(len(self._widths))]
        return self.space.from_indices([chosen])

    def _options(self, position: int) -> NDArray[np.int64]:
        return np.arange(self._starts[position], self._starts[position + 1])

    def _add_condition(self, position: int) -> None:
        """Options sum to 1; or to the sum of the parent's options that activate the choice."""
        row = np.zeros(self.n_terms)
        row[self._options(position)] = 1.0
        choice = self.space.choices[position]
        if choice.active is None:
            self._add(row, 1.0, 1.0)
            return
        name, options = choice.active
        parent = self.space.names.index(name)
        for option in options:
            row[self._starts[parent] + self.space.choices[parent].index(option)] = -1.0
        self._add(row, 0.0, 0.0)

    def _add_pair(self, a: int, b: int, first: int) -> None:
        """A combination is there exactly where both of its options are.

        Where both choices are always active together, the combinations of an option sum to it:
        that is the tightest form.
        """
        together = self.space.choices[a].active == self.space.choices[b].active
        places = first + np.arange(self._widths[a] * self._widths[b])
        grid = places.reshape(self._widths[a], self._widths[b])
        lines = [*zip(self._options(a), grid, strict=True)]
        lines += zip(self._options(b), grid.T, strict=True)
        for option, combinations in lines:
            row = np.zeros(self.n_terms)
            row[combinations], row[option] = 1.0, -1.0
            self._add(row, 0.0 if together else -np.inf, 0.0)
        if together:
            return
        for i, j in np.ndindex(grid.shape):
            row = np.zeros(self.n_terms)
            row[[self._options(a)[i], self._options(b)[j]]] = 1.0
            row[grid[i, j]] = -1.0
            self._add(row, -np.inf, 1.0)

    def _add(self, row: FloatArray, low: float, high: float) -> None:
        self._rows.append(row)
        self._low.append(low)
        self._high.append(high)


@contextmanager
def _kept_off_stdout() -> Iterator[None]:
    """Send to stderr what HiGHS prints whatever it is told (SciPy 1.17): stdout may be JSON.

    It prints from C, past `sys.stdout`.
    """
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
