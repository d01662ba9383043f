"""NSGA-II (Deb, Pratap, Agarwal and Meyarivan, 2002) on arrays of architectures.

Non-dominated sorting and crowding distances are pymoo's, crossover and mutation the search
space's, so that every child is canonical. There is no object per individual: pymoo's own
algorithm class takes ten times as long as the predictions.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pymoo.config import Config
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from hwsearch.objectives import FloatArray
from hwsearch.space import Architectures

Config.warnings["not_compiled"] = False  # it would be printed in the midst of a search

Evaluate = Callable[[Architectures], tuple[FloatArray, FloatArray | None]]

_CROSSOVER: Final = 0.9  # probability, as in the paper
_SORTING: Final = NonDominatedSorting()
_CROWDING: Final = get_crowding_function("cd")


def nsga2(
    evaluate: Evaluate,
    start: Architectures,
    rng: np.random.Generator,
    *,
    population: int,
    generations: int,
) -> Architectures:
    """Return the last population of NSGA-II, pairwise distinct, in crowded-comparison order.

    Args:
        evaluate: Returns losses ``(n, n_objectives)``, minimised, and violations ``(n,)``, 0
            where feasible, both finite; None for violations where there are no constraints.
        start: Distinct architectures of the first generation, at least 2.
        rng: The only source of randomness.
        population: Number of survivors, and of children, of a generation.
        generations: Number of generations after the first.
    """
    losses, violations = _evaluated(evaluate, start)
    kept = survivors(losses, violations, max(population, len(start)))
    alive, losses, violations = start[kept], losses[kept], violations[kept]
    for _ in range(generations):
        children = offspring(alive, population, rng)
        if not len(children):
            continue
        new_losses, new_violations = _evaluated(evaluate, children)
        alive = Architectures.concatenate([alive, children])
        losses = np.concatenate([losses, new_losses])
        violations = np.concatenate([violations, new_violations])
        kept = survivors(losses, violations, population)
        alive, losses, violations = alive[kept], losses[kept], violations[kept]
    return alive


def survivors(losses: FloatArray, violations: FloatArray, n: int) -> NDArray[np.int64]:
    """Return the positions of the n best of distinct individuals, the best first.

    Order: feasible before infeasible, then by Pareto rank and, within a rank, by falling
    crowding distance; infeasible ones by violation ``(m,)``, which is 0 where feasible.
    """
    feasible, infeasible = np.flatnonzero(violations <= 0), np.flatnonzero(violations > 0)
    order = []
    for front in _SORTING.do(losses[feasible], n_stop_if_ranked=n):
        distance = _CROWDING.do(losses[feasible[front]])
        order.append(feasible[front[np.argsort(-distance, kind="stable")]])
    order.append(infeasible[np.argsort(violations[infeasible], kind="stable")])
    return np.concatenate(order)[:n]


def offspring(parents: Architectures, n: int, rng: np.random.Generator) -> Architectures:
    """Return up to n children, pairwise distinct and unlike their parents, from n matings.

    Every child is a mutation of the crossover of two parents, or of one parent, which win binary
    tournaments. Parents are distinct and in the order of `survivors`.
    """
    first, second = rng.integers(len(parents), size=(2, 2, n)).min(axis=0)
    crossed = rng.random(n) < _CROSSOVER
    mated = parents.space.crossover(parents[first[crossed]], parents[second[crossed]], rng)
    bred = Architectures.concatenate([mated, parents[first[~crossed]]])
    return parents.space.mutate(bred, rng).unique(parents)


def _evaluated(evaluate: Evaluate, archs: Architectures) -> tuple[FloatArray, FloatArray]:
    losses, violations = evaluate(archs)
    return losses, np.zeros(len(losses)) if violations is None else violations
