"""NSGA-II (Deb, Pratap, Agarwal and Meyarivan, 2002) over architectures, by pymoo.

A pymoo algorithm is made afresh for every call and draws from the given generator only; the
operators are the space's own, so that every individual is canonical.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.config import Config
from pymoo.core.crossover import Crossover
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.selection.tournament import TournamentSelection

from hwsearch.objectives import FloatArray
from hwsearch.space import Architectures, SearchSpace

Config.warnings["not_compiled"] = False  # it would be printed in the midst of a search

Evaluate = Callable[[Architectures], tuple[FloatArray, FloatArray | None]]


def evolve(
    evaluate: Evaluate,
    start: Architectures,
    rng: np.random.Generator,
    *,
    population: int,
    generations: int,
) -> Architectures:
    """Run NSGA-II and return its last population.

    Args:
        evaluate: Gives losses ``(n, n_objectives)``, minimised, and violations ``(n,)``, 0 where
            feasible, both finite; None for violations where there are no constraints.
        start: Distinct architectures of the first generation, at least 2.
        rng: The only source of randomness.
        population: How many survive a generation.
        generations: How many, the first included.
    """
    space = start.space
    losses, violations = evaluate(start)
    problem = _Problem(space, losses.shape[1], violations is not None, evaluate)
    algorithm = _algorithm(problem, _evaluated(start, losses, violations), rng, population)
    for _ in range(generations):
        algorithm.next()
    return space.from_indices(algorithm.pop.get("X").astype(np.int64))


def offspring(
    parents: Architectures,
    losses: FloatArray,
    violations: FloatArray | None,
    rng: np.random.Generator,
    *,
    population: int,
) -> Architectures:
    """Let evaluated architectures survive and mate once, and return their children.

    Args:
        parents: Distinct architectures, at least 2.
        losses: ``(n, n_objectives)``, minimised, finite.
        violations: ``(n,)``, 0 where feasible; None where there are no constraints.
        rng: The only source of randomness.
        population: How many of the parents survive, and how many children they get.

    Returns:
        Distinct architectures that are not among the survivors; fewer than ``population`` where
        the space has no more near them.
    """
    problem = _Problem(parents.space, losses.shape[1], violations is not None)
    algorithm = _algorithm(problem, _evaluated(parents, losses, violations), rng, population)
    algorithm.advance(infills=algorithm.infill())
    children = algorithm.infill()
    if children is None or not len(children):
        return parents[:0]
    return parents.space.from_indices(children.get("X").astype(np.int64))


def _evaluated(archs: Architectures, losses: FloatArray, violations: FloatArray | None) -> Any:
    """A pymoo population whose individuals need no evaluation."""
    missed = np.empty((len(archs), 0)) if violations is None else violations[:, np.newaxis]
    individuals = Population.new(X=archs.indices, F=losses, G=missed, H=missed[:, :0])
    individuals.apply(lambda individual: individual.evaluated.update("FGH"))
    return individuals


def _algorithm(problem: "_Problem", start: Any, rng: np.random.Generator, population: int) -> Any:
    algorithm = NSGA2(
        pop_size=population,
        sampling=start,
        selection=TournamentSelection(func_comp=_tournament),
        crossover=_Crossover(problem.space),
        mutation=_Mutation(problem.space),
    )
    algorithm.setup(problem, termination=("n_gen", np.inf))
    algorithm.random_state = rng
    return algorithm


class _Problem(Problem):  # type: ignore[misc]
    def __init__(
        self,
        space: SearchSpace,
        n_objectives: int,
        constrained: bool,
        evaluate: Evaluate | None = None,
    ) -> None:
        n_choices = len(space.choices)
        super().__init__(n_var=n_choices, n_obj=n_objectives, n_ieq_constr=int(constrained))
        self.space = space
        self._losses = evaluate

    def _evaluate(self, x: NDArray[Any], out: dict[str, Any], *_: Any, **__: Any) -> None:
        if self._losses is None:
            raise RuntimeError("everything was to be evaluated before")
        out["F"], violations = self._losses(self.space.from_indices(x.astype(np.int64)))
        if violations is not None:
            out["G"] = violations[:, np.newaxis]


class _Crossover(Crossover):  # type: ignore[misc]
    def __init__(self, space: SearchSpace) -> None:
        super().__init__(2, 1, prob=0.9)
        self._space = space

    def _do(self, _: Any, parents: NDArray[Any], *__: Any, random_state: Any, **___: Any) -> Any:
        first, second = (self._space.from_indices(x.astype(np.int64)) for x in parents)
        return self._space.crossover(first, second, random_state).indices[np.newaxis]


class _Mutation(Mutation):  # type: ignore[misc]
    def __init__(self, space: SearchSpace) -> None:
        super().__init__(prob=1.0)
        self._space = space

    def _do(self, _: Any, x: NDArray[Any], *__: Any, random_state: Any, **___: Any) -> Any:
        archs = self._space.from_indices(x.astype(np.int64))
        return self._space.mutate(archs, random_state).indices


def _tournament(population: Any, pairs: NDArray[Any], random_state: Any, **_: Any) -> NDArray[Any]:
    """Winners of ``(n, 2)`` pairs: less violation, then lower rank, then less crowded."""
    violation = population.get("CV")[:, 0]
    feasible = violation <= 0
    rank = np.where(feasible, population.get("rank").astype(np.float64), np.inf)
    crowding = np.where(feasible, population.get("crowding").astype(np.float64), 0.0)
    order = np.lexsort((random_state.random(len(population)), -crowding, rank, violation))
    place = np.empty(len(population), dtype=np.int64)
    place[order] = np.arange(len(population))
    winners: NDArray[Any] = np.where(place[pairs[:, 0]] < place[pairs[:, 1]], *pairs.T)
    return winners[:, np.newaxis]
