"""Integer program over a search space: the exact optimum of an additive model, by HiGHS."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.encoding import onehot
from hwsearch.objectives import FloatArray
from hwsearch.space import Architectures, SearchSpace

_OPTIONS: Final = {
    "mip_rel_gap": 1e-4,
    "node_limit": 2000,  # unlike a time limit, the same on every machine
}


@dataclass(frozen=True, slots=True)
class Bound:
    """The linear constraint ``weights @ variables <= limit``."""

    weights: FloatArray
    limit: float


class IntegerProgram:
    """0/1 variables of architectures, and the minimisation of a linear function of them.

    There is a variable for each option of each choice (1 where the choice is active and has it),
    then one for each combination of the options of paired choices (``pairs`` of positions).
    Conditions are linear: the options of a choice sum to 1 where it is active, else to 0.
    """

    def __init__(self, space: SearchSpace, pairs: Sequence[tuple[int, int]] = ()) -> None:
        self.space = space
        self.pairs = tuple(pairs)
        self._widths = [len(choice.options) for choice in space.choices]
        self._starts = np.cumsum([0, *self._widths])
        self.n_options = int(self._starts[-1])
        self.n_variables = self.n_options + sum(
            self._widths[a] * self._widths[b] for a, b in self.pairs
        )
        self._rows: list[tuple[FloatArray, float, float]] = []  # with their lowest, highest sums
        for position in range(len(space.choices)):
            self._add_condition(position)
        first = self.n_options
        for a, b in self.pairs:
            self._add_pair(a, b, first)
            first += self._widths[a] * self._widths[b]

    def variables(self, archs: Architectures) -> FloatArray:
        """Return the 0/1 variables of architectures, ``(n, n_variables)``."""
        options = onehot(archs)
        columns = [options]
        for a, b in self.pairs:
            left, right = options[:, self._options(a)], options[:, self._options(b)]
            columns.append((left[:, :, np.newaxis] * right[:, np.newaxis]).reshape(len(archs), -1))
        return np.concatenate(columns, axis=1)

    def minimise(
        self, weights: FloatArray, bounds: Sequence[Bound], without: Architectures
    ) -> Architectures | None:
        """Return the architecture with the least ``weights @ variables``; None where none is left.

        The relative gap is 0.01%. Architectures in ``without`` are excluded by an inequality each.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        cuts = np.zeros((len(without), self.n_variables))
        cuts[:, : self.n_options] = onehot(without)
        rows = list(self._rows)
        for bound in bounds:
            unit = float(np.abs(bound.weights).max()) or 1.0
            rows.append((bound.weights / unit, -np.inf, bound.limit / unit))
        rows += [(cut, -np.inf, cut.sum() - 1.0) for cut in cuts]
        weighted, low, high = zip(*rows, strict=True)
        with _stdout_to_stderr():
            found = milp(
                weights,
                integrality=np.ones(self.n_variables),  # of pairs too: HiGHS is faster so
                bounds=Bounds(0.0, 1.0),
                constraints=LinearConstraint(csr_array(np.array(weighted)), low, high),
                options=_OPTIONS,
            )
        return None if found.x is None else self._architecture(found.x)

    def _architecture(self, x: FloatArray) -> Architectures:
        chosen = [int(np.argmax(x[self._options(p)])) for p in range(len(self._widths))]
        return self.space.from_indices([chosen])

    def _options(self, position: int) -> NDArray[np.int64]:
        return np.arange(self._starts[position], self._starts[position + 1])

    def _add_condition(self, position: int) -> None:
        """Options sum to 1, or to the sum of the parent's options that activate the choice."""
        row = np.zeros(self.n_variables)
        row[self._options(position)] = 1.0
        choice = self.space.choices[position]
        if choice.active is None:
            self._rows.append((row, 1.0, 1.0))
            return
        name, options = choice.active
        parent = self.space.names.index(name)
        for option in options:
            row[self._starts[parent] + self.space.choices[parent].index(option)] = -1.0
        self._rows.append((row, 0.0, 0.0))

    def _add_pair(self, a: int, b: int, first: int) -> None:
        """A combination is 1 exactly where both of its options are.

        For choices always active together, an option's combinations sum to it (tightest form).
        """
        together = self.space.choices[a].active == self.space.choices[b].active
        places = first + np.arange(self._widths[a] * self._widths[b])
        grid = places.reshape(self._widths[a], self._widths[b])
        lines = [*zip(self._options(a), grid, strict=True)]
        lines += zip(self._options(b), grid.T, strict=True)
        for option, combinations in lines:
            row = np.zeros(self.n_variables)
            row[combinations], row[option] = 1.0, -1.0
            self._rows.append((row, 0.0 if together else -np.inf, 0.0))
        if together:
            return
        for i, j in np.ndindex(grid.shape):
            row = np.zeros(self.n_variables)
            row[[self._options(a)[i], self._options(b)[j]]] = 1.0
            row[grid[i, j]] = -1.0
            self._rows.append((row, -np.inf, 1.0))


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect stdout to stderr: HiGHS prints from C even when output is off (SciPy 1.17)."""
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
