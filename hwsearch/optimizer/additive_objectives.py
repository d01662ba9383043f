"""Additive models of objectives over the terms of a programme: fitted to functions or values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from hwsearch.objectives import FloatArray
from hwsearch.optimizer.integer_program import Programme
from hwsearch.prediction.additive import AdditiveModel
from hwsearch.prediction.prior_covariance import kin_gains
from hwsearch.prediction.steps import encode_steps, step_columns, step_widths
from hwsearch.prediction.target_transform import Scale
from hwsearch.space import Architectures, SearchSpace

Function = Callable[[Architectures], ArrayLike]

_MAX_PAIRS: Final = 64
_NEGLIGIBLE: Final = 1e-4  # share of a function's range below which two choices do not interact
_N_BASES: Final = 3
_TINY: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """An objective as ``constant + weights @ terms``, on a scale that rises with it.

    Attributes:
        constant: On the scale.
        weights: ``(n_terms,)``.
        root: ``(n_terms, k)``, of the weights' covariance; None where they are known.
        scale: On which it adds up.
    """

    constant: float
    weights: FloatArray
    root: FloatArray | None = None
    scale: Scale = field(default_factory=Scale)

    def sum_at(self, value: float) -> float:
        """Return what ``weights @ terms`` is where the objective has a value.

        A value that the scale does not reach counts as one just within it.
        """
        side, limit = self.scale.side, self.scale.limit
        if side:
            nearest = limit - side * _TINY * self.scale.span
            value = min(value, nearest) if side > 0 else max(value, nearest)
        return float(self.scale.forward(np.array([value]))[0]) - self.constant

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
    weights = np.linalg.lstsq(terms - centre, values - constant, rcond=None)[0]
    return Additive(constant=constant - float(weights @ centre), weights=weights)


def of_values(
    archs: Architectures, values: FloatArray, noise: FloatArray, programme: Programme
) -> Additive:
    """Learn gains from told values; see `AdditiveModel`. Pairs have none.

    Args:
        archs: n evaluated architectures, at least 1.
        values: (n,) what was told of them.
        noise: (n,) standard deviations of what is known in part.
        programme: Whose terms it is in.
    """
    model = AdditiveModel(kin_gains(programme.space), step_columns(programme.space))
    model.fit(encode_steps(archs), values, noise)
    columns = np.zeros((programme.n_terms, model.columns_.shape[1]))
    columns[: programme.n_options] = _steps_of_options(programme.space) @ model.columns_[1:]
    return Additive(
        constant=float(model.columns_[0, 0]),
        weights=columns[:, 0],
        root=columns[:, 2:],  # the directions in which gains vary together
        scale=model.scale_,
    )


def _steps_of_options(space: SearchSpace) -> FloatArray:
    """What each option adds to the columns of `encode_steps`: ``(n_options, n_columns)``."""
    blocks = []
    for choice, width in zip(space.choices, step_widths(space), strict=True):
        n_options = len(choice.options)
        full = np.tri(n_options) if choice.ordered else np.eye(n_options)
        blocks.append(full[:, n_options - width :])
    return np.asarray(block_diag(*blocks))
