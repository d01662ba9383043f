"""A fast evolutionary search over predictions, where many thousands of evaluations cost nothing.

It selects as NSGA-II does (Deb, Pratap, Agarwal and Meyarivan, 2002): by violation, then by rank,
and within the last rank by crowding. `hwsearch.optimizer.nsga2` is pymoo's; its bookkeeping, one
object per individual, takes ten times as long as the predictions themselves.
"""

from collections.abc import Callable

import moocore
import numpy as np
from numpy.typing import NDArray

from hwsearch.objectives import FloatArray
from hwsearch.space import Architectures

Losses = Callable[[Architectures], tuple[FloatArray, FloatArray | None]]


def evolve(
    evaluate: Losses,
    start: Architectures,
    rng: np.random.Generator,
    *,
    population: int,
    generations: int,
) -> Architectures:
    """Return the survivors of all generations, pairwise distinct.

    Every child is a mutation, of one parent or of a crossing of two, drawn uniformly.

    Args:
        evaluate: Gives losses ``(n, n_objectives)``, minimised, and violations ``(n,)``, 0 where
            feasible, both finite; None for violations where there are no constraints.
        start: Distinct architectures of the first generation, at least 2.
        rng: The only source of randomness.
        population: How many survive a generation, and how many children there are in each.
        generations: How many, after the first.
    """
    alive = start
    losses, missed = _evaluated(evaluate, start)
    for _ in range(generations):
        children = _children(alive, population, rng).unique(alive)
        if not len(children):
            continue
        born, born_missed = _evaluated(evaluate, children)
        alive = Architectures.concatenate([alive, children])
        losses, missed = np.concatenate([losses, born]), np.concatenate([missed, born_missed])
        kept = survivors(losses, missed, population)
        alive, losses, missed = alive[kept], losses[kept], missed[kept]
    return alive


def survivors(losses: FloatArray, missed: FloatArray, n: int) -> NDArray[np.int64]:
    """Positions of the n best of distinct individuals, the best first.

    Args:
        losses: ``(m, n_objectives)``, minimised.
        missed: ``(m,)`` violations.
        n: How many survive.
    """
    rank = np.where(missed > 0, np.inf, 0.0)
    feasible = missed <= 0
    if feasible.any():
        rank[feasible] = moocore.pareto_rank(losses[feasible])
    order = np.lexsort((rank, missed))
    if len(order) <= n:
        return order
    last = order[n - 1]
    if missed[last] > 0:
        return order[:n]
    better, level = order[rank[order] < rank[last]], order[rank[order] == rank[last]]
    spread = np.argsort(-_crowding(losses[level]), kind="stable")
    return np.concatenate([better, level[spread[: n - len(better)]]])


def _evaluated(evaluate: Losses, archs: Architectures) -> tuple[FloatArray, FloatArray]:
    losses, violations = evaluate(archs)
    return losses, np.zeros(len(losses)) if violations is None else violations


def _children(parents: Architectures, n: int, rng: np.random.Generator) -> Architectures:
    first, second = rng.integers(len(parents), size=(2, n))
    crossed = parents.space.crossover(parents[first], parents[second], rng)
    mixed = rng.random(n) < 0.5
    both = Architectures.concatenate([crossed[mixed], parents[first[~mixed]]])
    return parents.space.mutate(both, rng).unique()


def _crowding(losses: FloatArray) -> FloatArray:
    """Sum over the objectives of the distance between both neighbours, endless at the ends."""
    total = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        sorted_ = column[order]
        gaps = np.full(len(column), np.inf)
        gaps[1:-1] = (sorted_[2:] - sorted_[:-2]) / max(sorted_[-1] - sorted_[0], 1e-300)
        total[order] += gaps
    return total
