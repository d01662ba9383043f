"""Additive models of objectives over the variables of an integer program."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from hwsearch.encoding import column_counts, thermometer, thermometer_columns
from hwsearch.objectives import FloatArray
from hwsearch.optimizer.integer_program import IntegerProgram
from hwsearch.prediction.additive import AdditiveModel
from hwsearch.prediction.prior_covariance import prior_covariances
from hwsearch.prediction.target_transform import TargetTransform
from hwsearch.space import Architectures, SearchSpace

Function = Callable[[Architectures], ArrayLike]

_MAX_PAIRS: Final = 64
_NEGLIGIBLE: Final = 1e-4  # share of a function's range below which two choices do not interact
_N_BASES: Final = 3
_TINY: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveObjective:
    """An objective as ``constant + weights @ variables``, on a transform that rises with it.

    ``root``, ``(n_variables, k)``, is of the weights' posterior covariance; None where it is 0.
    """

    constant: float
    weights: FloatArray
    root: FloatArray | None = None
    transform: TargetTransform = field(default_factory=TargetTransform)

    def sum_at(self, value: float) -> float:
        """Return ``weights @ variables`` for a value, clipped to the transform's limit."""
        side, limit = self.transform.side, self.transform.limit
        if side:
            nearest = limit - side * _TINY * self.transform.span
            value = min(value, nearest) if side > 0 else max(value, nearest)
        return float(self.transform.forward(np.array([value]))[0]) - self.constant

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """Draw weights from their posterior."""
        if self.root is None:
            return self.weights
        drawn: FloatArray = self.weights + self.root @ rng.standard_normal(self.root.shape[1])
        return drawn


def interacting_pairs(function: Function, space: SearchSpace) -> list[tuple[int, int]]:
    """Return up to 64 pairs of choices whose effects on a function do not add up, strongest first.

    The interaction of two choices is their second difference around a few architectures. Choices
    of which one determines whether the other is active need no pair: an inactive choice has no
    variable. The smaller position is first in a pair.
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
    """Return the sizes of the interactions, above the diagonal, and all computed values."""
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


def fit_function(function: Function, program: IntegerProgram) -> AdditiveObjective:
    """Fit a function by least squares on random architectures; exact where it is additive."""
    archs = program.space.sample(2 * program.n_variables, 0)
    variables = program.variables(archs)
    values = np.asarray(function(archs), dtype=np.float64)
    centre, constant = variables.mean(axis=0), float(values.mean())
    weights = np.linalg.lstsq(variables - centre, values - constant, rcond=None)[0]
    return AdditiveObjective(constant=constant - float(weights @ centre), weights=weights)


def fit_values(
    archs: Architectures, values: FloatArray, noise: FloatArray, program: IntegerProgram
) -> AdditiveObjective:
    """Fit an `AdditiveModel` to told values (n,) with deviations ``noise``; pairs weigh 0."""
    model = AdditiveModel(
        prior_covariances(program.space), thermometer_columns(program.space).ordered
    )
    model.fit(thermometer(archs), values, noise)
    columns = np.zeros((program.n_variables, model.columns_.shape[1]))
    columns[: program.n_options] = _columns_of_options(program.space) @ model.columns_[1:]
    return AdditiveObjective(
        constant=float(model.columns_[0, 0]),
        weights=columns[:, 0],
        root=columns[:, 2:],  # principal directions of the posterior
        transform=model.transform_,
    )


def _columns_of_options(space: SearchSpace) -> FloatArray:
    """Return what each option adds to the columns of `thermometer`: ``(n_options, n_columns)``."""
    blocks = []
    for choice, width in zip(space.choices, column_counts(space), strict=True):
        n_options = len(choice.options)
        full = np.tri(n_options) if choice.ordered else np.eye(n_options)
        blocks.append(full[:, n_options - width :])
    return np.asarray(block_diag(*blocks))
