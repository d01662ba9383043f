"""Tactics, functions that propose architectures from the history of a search; their registry.

pymoo and scipy are imported on first use, so that importing an optimiser is fast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsearch import plugins
from hwsearch.errors import InputError
from hwsearch.objectives import to_losses
from hwsearch.optimizer.history import N_INITIAL, History
from hwsearch.space import Architectures

GROUP: Final = "hwsearch.tactics"
BATCH: Final = 4
N_START: Final = 12  # of the start that are evaluated first
MIN_SUCCESSES: Final = 3  # values that surrogates need

_NSGA2_POPULATION: Final = 50
_MATINGS: Final = 10  # of the whole population, until there are as many new children as wanted

Propose = Callable[[History, int, int, np.random.Generator], Architectures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tactic:
    """A search algorithm, registered under a name in the entry-point group ``hwsearch.tactics``.

    `hwsearch.testing.check_tactic` checks these requirements. Linear algebra within it has one
    thread.

    Attributes:
        propose: (history, n, seed of the search, generator of this round) -> up to n distinct
            architectures never asked for; where it returns none they are drawn at random. It
            depends on these four alone, keeps no state between calls, and changes nothing in
            the history but its forecasts.
        batch: Default number of architectures.
        approximates: Whether it uses the objectives' approximations; only then are they kept in
            the history and checked.
    """

    propose: Propose
    batch: int = BATCH
    approximates: bool = False


def tactic_names() -> list[str]:
    """Return the names of all registered tactics."""
    return plugins.names(GROUP)


def load_tactic(name: str) -> Tactic:
    """Return a registered tactic; raise InputError for an unknown name or an invalid plugin."""
    tactic = plugins.load(GROUP, name, "tactic")
    if not isinstance(tactic, Tactic):
        raise InputError(
            f"what is registered as tactic {name!r} is {tactic!r}; register a "
            "hwsearch.optimizer.Tactic, such as TACTIC = Tactic(propose=...)"
        )
    return tactic


def propose_by_surrogates(
    history: History, n: int, seed: int, rng: np.random.Generator
) -> Architectures:
    """Propose the initial design, then batches of the largest expected hypervolume gain."""
    first = unasked_design(history, seed)[:n]
    if len(first) == n:
        return first
    if history.succeeded.sum() < min(MIN_SUCCESSES, history.space.size):
        return first or history.space.sample_distinct(n, rng, exclude=history.asked)
    from hwsearch.optimizer.acquisition import choose_batch, find_candidates
    from hwsearch.optimizer.posterior import Posterior
    from hwsearch.optimizer.scaled_history import ScaledHistory

    history = ScaledHistory(history)
    posterior = Posterior(history)
    candidates = find_candidates(history, posterior, rng).unique(first)
    chosen = choose_batch(history, posterior, candidates, n - len(first), rng)
    return Architectures.concatenate([first, chosen])


def unasked_design(history: History, seed: int) -> Architectures:
    """Return the architectures of the initial design that have not been asked for yet.

    They are up to 12 of the start where there is one. Else they are six, or four where every
    measured objective has an approximation to calibrate.
    """
    from hwsearch.optimizer.initial_design import initial_design, start_design

    start = start_design(history, N_START)
    if len(start):
        return start.unique(history.asked)
    measured = [column for column, o in enumerate(history.objectives) if o.computed is None]
    n = BATCH if list(history.approximations) == measured else N_INITIAL
    return initial_design(history.space, N_INITIAL, seed)[:n].unique(history.asked)


def propose_by_nsga2(
    history: History, n: int, seed: int, rng: np.random.Generator
) -> Architectures:
    """Propose offspring of the best measured architectures, after a random first population."""
    missing = _NSGA2_POPULATION - len(history.asked)
    if missing > 0 or history.succeeded.sum() < 2:
        return propose_random(history, min(n, max(missing, 1)), seed, rng)
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


def propose_random(history: History, n: int, seed: int, rng: np.random.Generator) -> Architectures:
    """Propose distinct architectures drawn uniformly."""
    del seed
    return history.space.sample_distinct(n, rng, exclude=history.asked)


HWSEARCH: Final = Tactic(propose=propose_by_surrogates, approximates=True)
NSGA2: Final = Tactic(propose=propose_by_nsga2)
RANDOM: Final = Tactic(propose=propose_random)
