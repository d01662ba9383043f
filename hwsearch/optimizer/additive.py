"""Tactic `additive`: additive models of the objectives, optimised by integer programming.

As in LANA (Molchanov et al., 2022) and Puzzle (Bercovich et al., 2024): a weight for each option
and for each combination of two options that interact, such as those that share a width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from hwsearch.encoding import column_counts, thermometer, thermometer_columns
from hwsearch.objectives import FloatArray, loss_signs
from hwsearch.optimizer.history import History
from hwsearch.optimizer.integer_program import Bound, IntegerProgram
from hwsearch.optimizer.tactics import MIN_SUCCESSES, Tactic, propose_random, unasked_design
from hwsearch.prediction.linear import LinearModel
from hwsearch.prediction.prior_covariance import prior_covariances
from hwsearch.prediction.target_transform import TargetTransform
from hwsearch.space import Architectures, SearchSpace

Function = Callable[[Architectures], ArrayLike]

_MAX_PAIRS: Final = 64
_NEGLIGIBLE: Final = 1e-4  # share of a function's range below which two choices do not interact
_N_BASES: Final = 3
_TINY: Final = 1e-9
_MAX_TIGHTENED: Final = 5


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
    """Fit an `LinearModel` to told values (n,) with deviations ``noise``; pairs weigh 0."""
    ordered = thermometer_columns(program.space).ordered
    model = LinearModel(prior_covariances(program.space), ordered)
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


def propose_by_additive(
    history: History, n: int, seed: int, rng: np.random.Generator
) -> Architectures:
    """Propose the initial design, then the optima of additive models.

    Where a constraint is on another objective than the first, the first objective is optimised
    within the constraints; elsewhere within levels of the other objectives, which sweep the
    front. The first of a batch uses the most likely weights, the others weights drawn from their
    posterior (Thompson sampling), since the next best solutions would all be similar.
    """
    first = unasked_design(history, seed)[:n]
    if len(first):
        return first
    if history.succeeded.sum() < min(MIN_SUCCESSES, history.space.size):
        return propose_random(history, n, seed, rng)
    return _Solver(history).batch(n, rng)


class _Solver:
    """Additive models of a history's objectives, and batches of their optima."""

    def __init__(self, history: History) -> None:
        self._history = history
        columns = range(len(history.objectives))
        functions = {c: f for c in columns if (f := self._function(c)) is not None}
        pairs = [pair for f in functions.values() for pair in interacting_pairs(f, history.space)]
        self._program = IntegerProgram(history.space, list(dict.fromkeys(pairs)))
        self._fitted = {c: fit_function(f, self._program) for c, f in functions.items()}
        self._models = [self._model(column) for column in columns]
        self._signs = loss_signs(history.objectives)
        others = {objective.name for objective in history.objectives[1:]}
        self._constrained = any(each.objective in others for each in history.constraints)

    def batch(self, n: int, rng: np.random.Generator) -> Architectures:
        found = self._history.space.sample(0, 0)
        for place in range(n):
            first = self._models[0]
            weights = self._signs[0] * (first.draw(rng) if place else first.weights)
            levels = [] if self._constrained else self._levels((place + rng.random()) / n)
            best = self._best(weights, levels, found)
            if best is not None:
                found = Architectures.concatenate([found, best])
        return found

    def _best(
        self, weights: FloatArray, levels: Sequence[Bound], found: Architectures
    ) -> Architectures | None:
        """Return the best within constraints and levels, else within constraints, else nearest.

        Where an exact objective misses a constraint that its model keeps, the bound is tightened
        by as much, and the program solved again.
        """
        without = Architectures.concatenate([self._history.asked, found])
        slack = np.zeros(len(self._history.constraints))
        best = None
        for _ in range(_MAX_TIGHTENED):
            bounds = self._constraints(slack)
            best = self._program.minimise(weights, [*bounds, *levels], without)
            if best is None and levels:
                best = self._program.minimise(weights, bounds, without)
            if best is None:
                toward = [bound.weights / (abs(bound.limit) or 1.0) for bound in bounds]
                return self._program.minimise(np.sum(toward, axis=0), [], without)
            missed = self._missed(best)
            if not missed.any():
                break
            slack += missed
        return best

    def _constraints(self, slack: FloatArray) -> list[Bound]:
        names = [objective.name for objective in self._history.objectives]
        bounds = []
        for constraint, less in zip(self._history.constraints, slack, strict=True):
            model = self._models[names.index(constraint.objective)]
            sign = 1.0 if constraint.is_upper else -1.0
            limit = sign * model.sum_at(constraint.bound) - less
            bounds.append(Bound(sign * model.weights, limit))
        return bounds

    def _missed(self, arch: Architectures) -> FloatArray:
        """Return the violation of each constraint on an exact objective by one architecture."""
        exact = self._history.by_name(self._history.exact(arch))
        constraints = self._history.constraints
        missed = [float(each.violation(exact[each.objective])[0]) for each in constraints]
        return np.where(np.isfinite(missed), missed, 0.0)

    def _levels(self, position: float) -> list[Bound]:
        """Return bounds on all but the first objective at a position from 0 to 1 on the front.

        They interpolate between neighbours in the second objective, covered evenly by positions.
        """
        front = self._history.losses[self._history.front][:, 1:]
        if not front.size:
            return []
        front = front[np.argsort(front[:, 0], kind="stable")]
        at = front[0, 0] + position * (front[-1, 0] - front[0, 0])
        levels = [np.interp(at, front[:, 0], column) for column in front.T]
        return [
            Bound(sign * model.weights, sign * model.sum_at(sign * float(level)))
            for sign, model, level in zip(self._signs[1:], self._models[1:], levels, strict=True)
        ]

    def _function(self, column: int) -> Function | None:
        """Return an objective's exact or approximate function; None where it is only measured."""
        objective = self._history.objectives[column]
        check = self._history.approximations.get(column)
        return objective.computed if check is None or check.given_up else objective.approximation

    def _model(self, column: int) -> AdditiveObjective:
        """Return the fitted function, scaled where it is an approximation, or a learnt model."""
        history, known = self._history, self._history.succeeded
        archs, values = history.told[known], history.values[known, column]
        fitted = self._fitted.get(column)
        if fitted is None:
            noise = history.deviations[known, column]
            return fit_values(archs, values, noise, self._program)
        if history.objectives[column].computed is not None:
            return fitted
        rough = fitted.constant + self._program.variables(archs) @ fitted.weights
        ratio = float(np.median(values / rough))
        return AdditiveObjective(constant=ratio * fitted.constant, weights=ratio * fitted.weights)


TACTIC: Final = Tactic(propose=propose_by_additive, approximates=True)
