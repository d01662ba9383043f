"""Tactics: how a search decides, from its history alone, what to evaluate next.

pymoo and scipy load when a tactic first needs them, so that importing an optimiser is cheap.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsearch import plugins
from hwsearch.errors import InputError
from hwsearch.objectives import to_losses
from hwsearch.optimizer.history import N_FIRST, History
from hwsearch.space import Architectures

GROUP: Final = "hwsearch.tactics"
BATCH: Final = 4
MIN_SUCCESSES: Final = 3  # below that a surrogate has nothing to go by

_NSGA2_POPULATION: Final = 50
_MATINGS: Final = 10  # of the whole population, until there are as many new children as wanted

Propose = Callable[[History, int, int, np.random.Generator], Architectures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tactic:
    """One way to search, as it is registered under a name in the group ``hwsearch.tactics``.

    `hwsearch.testing.check_tactic` says what a tactic owes.

    Attributes:
        propose: Takes the history, how many architectures are wanted, the search's seed, and a
            generator of this round. Returns up to so many, distinct and never asked for; where
            it has none they are drawn at random. It decides from these four alone, keeps nothing
            between calls, and changes nothing of the history, except that it may leave there
            what it foresees.
        batch: How many are wanted where nobody says.
        approximates: Whether it goes by the objectives' approximations; only then are they kept
            in the history and judged.
    """

    propose: Propose
    batch: int = BATCH
    approximates: bool = False


def tactic_names() -> list[str]:
    """Names of all registered tactics."""
    return plugins.names(GROUP)


def load_tactic(name: str) -> Tactic:
    """Return a registered tactic.

    Raises:
        InputError: No tactic is registered under that name, or what is registered is none.
    """
    tactic = plugins.load(GROUP, name, "tactic")
    if not isinstance(tactic, Tactic):
        raise InputError(
            f"what is registered as tactic {name!r} is {tactic!r}; register a "
            "hwsearch.optimizer.Tactic, such as TACTIC = Tactic(propose=...)"
        )
    return tactic


def by_surrogates(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Evaluate a first sample graded by size, then what surrogates expect to gain most."""
    first = first_sample(history, seed)[:n]
    if len(first) == n:
        return first
    if history.succeeded.sum() < min(MIN_SUCCESSES, history.space.size):
        return first or history.space.sample_distinct(n, rng, exclude=history.asked)
    from hwsearch.optimizer.acquisition import choose_batch, find_candidates
    from hwsearch.optimizer.posterior import Posterior
    from hwsearch.prediction.threads import one_blas_thread

    with one_blas_thread():
        posterior = Posterior(history)
        candidates = find_candidates(history, posterior, rng).unique(first)
        chosen = choose_batch(history, posterior, candidates, n - len(first), rng)
    return Architectures.concatenate([first, chosen])


def first_sample(history: History, seed: int) -> Architectures:
    """What of the first sample has not been asked for yet.

    Where every measured objective has an approximation, its first four, which calibrate that, do.
    """
    from hwsearch.optimizer.initial_design import graded_sample

    measured = [column for column, o in enumerate(history.objectives) if o.computed is None]
    n = BATCH if list(history.trusts) == measured else N_FIRST
    return graded_sample(history.space, N_FIRST, seed)[:n].unique(history.asked)


def by_nsga2(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Evaluate children of the best evaluated ones, after a random first population."""
    missing = _NSGA2_POPULATION - len(history.asked)
    if missing > 0 or history.succeeded.sum() < 2:
        return by_chance(history, min(n, max(missing, 1)), seed, rng)
    from hwsearch.optimizer.nsga2 import offspring, survivors

    told, values = history.told[history.succeeded], history.values[history.succeeded]
    best = survivors(
        to_losses(values, history.objectives), history.violation(values), _NSGA2_POPULATION
    )
    children = told[:0]
    for _ in range(_MATINGS):
        bred = offspring(told[best], _NSGA2_POPULATION, rng).unique(history.asked)
        children = Architectures.concatenate([children, bred]).unique()[:n]
        if len(children) == n:
            break
    return children


def by_chance(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Evaluate distinct architectures drawn uniformly."""
    del seed
    return history.space.sample_distinct(n, rng, exclude=history.asked)


HWSEARCH: Final = Tactic(propose=by_surrogates, approximates=True)
NSGA2: Final = Tactic(propose=by_nsga2)
RANDOM: Final = Tactic(propose=by_chance)
