"""Tactics: how a search decides, from its history alone, what to evaluate next.

pymoo and scipy load when a tactic first needs them, so that importing an optimiser is cheap.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from hwsearch.optimizer.history import N_FIRST, History
from hwsearch.space import Architectures

_MIN_SUCCESSES: Final = 3  # below that a surrogate has nothing to go by
_NSGA2_POPULATION: Final = 50

Tactic = Callable[[History, int, int, np.random.Generator], Architectures]


def by_surrogates(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Evaluate a first sample graded by size, then what surrogates expect to gain most."""
    space = history.space
    graded = space.sample_spread(min(N_FIRST, space.size), np.random.default_rng((seed, 0)))
    first = _ends_first(graded).unique(history.asked)[:n]
    if len(first):
        return first
    if history.succeeded.sum() < min(_MIN_SUCCESSES, history.space.size):
        return history.space.sample_distinct(n, rng, exclude=history.asked)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from hwsearch.optimizer.candidates import choose_batch, find_candidates
    from hwsearch.optimizer.posterior import Posterior

    # The matrices are small: threads cost more than they bring, and could change the last bit.
    with threadpool_limits(1, user_api="blas"):
        posterior = Posterior(history)
        candidates = find_candidates(history, posterior, rng)
        return choose_batch(history, posterior, candidates, n, rng)


def by_nsga2(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Evaluate children of the best evaluated ones, after a random first population."""
    missing = _NSGA2_POPULATION - len(history.asked)
    if missing > 0 or history.succeeded.sum() < 2:
        return by_chance(history, min(n, max(missing, 1)), seed, rng)
    from hwsearch.optimizer.nsga2 import offspring

    parents = history.succeeded
    children = offspring(
        history.told[parents],
        history.losses[parents],
        history.violation(history.values[parents]) if history.constraints else None,
        rng,
        population=_NSGA2_POPULATION,
    )
    return children.unique(history.asked)[:n]


def by_chance(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Evaluate distinct architectures drawn uniformly."""
    del seed
    return history.space.sample_distinct(n, rng, exclude=history.asked)


PREDICTING: Final = "hwsearch"
TACTICS: Final[dict[str, Tactic]] = {
    PREDICTING: by_surrogates,
    "nsga2": by_nsga2,
    "random": by_chance,
}


def _ends_first(graded: Architectures) -> Architectures:
    """Smallest, largest, then what lies farthest from those before, for small batches."""
    left = np.linspace(0.0, 1.0, len(graded))
    order = [0]
    while len(order) < len(graded):
        gaps = np.abs(left[:, None] - left[order]).min(axis=1)
        order.append(int(np.argmax(gaps)))
    return graded[order]
