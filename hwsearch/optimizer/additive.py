"""Tactic `additive`: additive models of the objectives, optimised by integer programming.

As in LANA (Molchanov et al., 2022) and Puzzle (Bercovich et al., 2024): a weight for each option
and for each combination of two options that interact, such as those that share a width.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from hwsearch.objectives import FloatArray, loss_signs
from hwsearch.optimizer.additive_objectives import (
    AdditiveObjective,
    Function,
    fit_function,
    fit_values,
    interacting_pairs,
)
from hwsearch.optimizer.history import History
from hwsearch.optimizer.integer_program import Bound, IntegerProgram
from hwsearch.optimizer.tactics import MIN_SUCCESSES, Tactic, propose_random, unasked_design
from hwsearch.space import Architectures

_MAX_TIGHTENED: Final = 5


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
    from hwsearch.prediction.threads import one_blas_thread

    with one_blas_thread():
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
        self._others = {
            column
            for column, objective in enumerate(history.objectives)
            if column and any(c.objective == objective.name for c in history.constraints)
        }

    def batch(self, n: int, rng: np.random.Generator) -> Architectures:
        found = self._history.space.sample(0, 0)
        for place in range(n):
            first = self._models[0]
            weights = self._signs[0] * (first.draw(rng) if place else first.weights)
            levels = [] if self._others else self._levels((place + rng.random()) / n)
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
        objective, check = (
            self._history.objectives[column],
            self._history.approximations.get(column),
        )
        if check is None or check.given_up:
            return objective.computed
        return objective.approximation

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
