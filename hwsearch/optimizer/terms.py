"""Additive models of objectives over the terms of a programme: fitted to functions or values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.objectives import FloatArray
from hwsearch.optimizer.programme import Programme
from hwsearch.space import Architectures, SearchSpace

Function = Callable[[Architectures], ArrayLike]

_MAX_PAIRS: Final = 64
_NEGLIGIBLE: Final = 1e-4  # share of a function's range below which two choices do not interact
_N_BASES: Final = 3
_TINY: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """An objective as ``constant + weights @ terms``.

    Attributes:
        constant: In the objective's unit.
        weights: ``(n_terms,)``.
        root: ``(n_terms, k)``, of the weights' covariance; None where they are known.
    """

    constant: float
    weights: FloatArray
    root: FloatArray | None = None

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """Draw weights as likely as any, given what they were learnt from."""
        if self.root is None:
            return self.weights
        drawn: FloatArray = self.weights + self.root @ rng.standard_normal(self.root.shape[1])
        return drawn


def interacting_pairs(function: Function, space: SearchSpace) -> list[tuple[int, int]]:
    """Find the pairs of choices whose effects on a function do not add up, the strongest first.

    Around a few architectures, each choice and each two choices take other options; what is left
    of the second difference is their interaction. Choices of which one decides whether the other
    is active need no pair: an inactive choice has no term.

    Returns:
        Up to 64 pairs of positions, the smaller first.
    """
    n_choices = len(space.choices)
    strength = np.zeros((n_choices, n_choices))
    span = 0.0
    bases = [space.largest()[[0]], space.sample(_N_BASES - 1, 0)]
    for base in Architectures.concatenate(bases).indices:
        found, values = _second_differences(function, space, base)
        strength = np.maximum(strength, found)
        span = max(span, float(np.ptp(values)))
    first, second = np.nonzero(strength > max(_NEGLIGIBLE * span, _TINY))
    order = np.argsort(-strength[first, second], kind="stable")[:_MAX_PAIRS]
    return [(int(first[i]), int(second[i])) for i in order]


def _second_differences(
    function: Function, space: SearchSpace, base: np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """Sizes of the interactions, above the diagonal, and all values that were computed."""
    n_choices = len(base)
    ends = np.array([len(choice.options) - 1 for choice in space.choices])
    other = np.where(base > ends / 2, 0, ends)
    a, b = np.triu_indices(n_choices, 1)
    rows = np.tile(base, (1 + n_choices + len(a), 1))
    single, double = 1 + np.arange(n_choices), 1 + n_choices + np.arange(len(a))
    rows[single, np.arange(n_choices)] = other
    rows[double, a], rows[double, b] = other[a], other[b]
    archs = space.from_indices(rows)
    values = np.asarray(function(archs), dtype=np.float64)
    left = values[double] - values[single[a]] - values[single[b]] + values[0]
    corners = (np.zeros_like(a), single[a], single[b], double)
    active = [archs.active[corner, a] & archs.active[corner, b] for corner in corners]
    strength = np.zeros((n_choices, n_choices))
    strength[a, b] = np.where(np.all(active, axis=0), np.abs(left), 0.0)
    return strength, values


def of_function(function: Function, programme: Programme) -> Additive:
    """Fit a function by least squares on random architectures; exact where it is additive."""
    archs = programme.space.sample(2 * programme.n_terms, 0)
    terms = programme.terms(archs)
    values = np.asarray(function(archs), dtype=np.float64)
    centre, constant = terms.mean(axis=0), float(values.mean())
    weights = np.linalg.lstsq(terms - centre, values - constant)[0]
    return Additive(constant=constant - float(weights @ centre), weights=weights)


def of_values(archs: Architectures, values: FloatArray, programme: Programme) -> Additive:
    """Learn gains from told values: Bayesian linear regression on steps up (MacKay, 1992).

    Every step up of an ordered choice has a gain of its own around one that all share, every
    option of another choice one of its own; pairs have none.
    """
    from sklearn.linear_model import BayesianRidge

    steps = _option_steps(programme.space)
    rows = programme.terms(archs)[:, : programme.n_options] @ steps
    model = BayesianRidge().fit(rows, values)
    weights, root = np.zeros(programme.n_terms), np.zeros((programme.n_terms, steps.shape[1]))
    weights[: programme.n_options] = steps @ model.coef_
    sizes, axes = np.linalg.eigh(model.sigma_)
    root[: programme.n_options] = steps @ (axes * np.sqrt(np.maximum(sizes, 0.0)))
    return Additive(constant=float(model.intercept_), weights=weights, root=root)


def _option_steps(space: SearchSpace) -> FloatArray:
    """What each option is made of, ``(n_options, n_columns)``: steps, and their number first."""
    blocks = []
    for choice in space.choices:
        n_options = len(choice.options)
        full = np.tri(n_options) if choice.ordered else np.eye(n_options)
        blocks.append(full[:, 1:] if choice.ordered and choice.active is None else full)
    n_rows, n_columns = np.sum([block.shape for block in blocks], axis=0)
    steps, size = np.zeros((n_rows, n_columns)), np.zeros(n_rows)
    row = column = 0
    for block, choice in zip(blocks, space.choices, strict=True):
        rows = slice(row, row + block.shape[0])
        steps[rows, column : column + block.shape[1]] = block
        size[rows] = block.sum(axis=1) if choice.ordered else 0.0
        row, column = row + block.shape[0], column + block.shape[1]
    return np.column_stack([size, steps])
