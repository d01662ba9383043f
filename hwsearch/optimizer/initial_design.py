"""Initial design of a search: graded by size, and informative of the prior's weights."""

from functools import lru_cache
from typing import Final

import numpy as np

from hwsearch.constraints import satisfied
from hwsearch.encoding import thermometer
from hwsearch.objectives import FloatArray
from hwsearch.optimizer.history import History
from hwsearch.prediction.prior_covariance import kind_indices, prior_covariances
from hwsearch.space import Architectures, SearchSpace

_TILT: Final = 0.15  # largest deviation of a choice from the common level, in its range
_POOL: Final = 100  # candidates at every level
_OTHERS: Final = 1 / 3  # share of the start that is of batches behind the first
_NOISE: Final = 0.05  # variance of the residuals, for standardised values


def start_design(history: History, n: int) -> Architectures:
    """Return up to n of the start that keep all constraints on computed objectives.

    A third of them is of the batches behind the first. Those of a batch are spaced evenly, in the
    order: the first, the last, then the farthest from those before.
    """
    computed = {o.name for o in history.objectives if o.computed is not None}
    known = [each for each in history.constraints if each.objective in computed]
    found, others = history.space.sample(0, 0), history.start[1:]
    for number, batch in enumerate(history.start):
        if known:
            batch = batch[satisfied(history.by_name(history.exact(batch)), known)]
        batch = batch.unique(found)
        share = int(n * _OTHERS) // len(others) if others else 0
        wanted = share if number else n - share * len(others)
        places = np.linspace(0, len(batch) - 1, min(wanted, len(batch))).round().astype(np.int64)
        found = Architectures.concatenate(
            [found, batch[places[_farthest_first(np.linspace(0.0, 1.0, len(places)))]]]
        )
    return found


@lru_cache(maxsize=8)
def initial_design(space: SearchSpace, n: int, seed: int) -> Architectures:
    """Return n distinct architectures, graded by size, by sequential D-optimal design.

    The smallest and the largest, and between them one at every level: of a pool that leans a
    little toward some kinds of choices and toward one end of the space, the one with the largest
    variance given those before (Fedorov, Theory of optimal experiments, 1972) under
    `prior_covariances`. All stay near uniform scaling, where good architectures are. Order:
    smallest, largest, then the level farthest from those before. Fewer for a smaller space.
    """
    n, rng = min(n, space.size), np.random.default_rng((seed, 0))
    chosen = Architectures.concatenate([space.smallest(), space.largest()]).unique()[:n]
    prior = sum(np.exp(term.log_factor) * term.covariance for term in prior_covariances(space))
    center = thermometer(chosen).mean(axis=0)
    for level in np.linspace(0.0, 1.0, n)[1:-1]:
        pool = _leaning(space, float(level), rng).unique(chosen)
        if not len(pool):
            pool = space.sample_distinct(1, rng, exclude=chosen)
        known, new = (thermometer(archs) - center for archs in (chosen, pool))
        best = np.argmax(_variance(known, new, np.asarray(prior)))
        chosen = Architectures.concatenate([chosen, pool[[int(best)]]])
    level = np.array([0.0, 1.0, *np.linspace(0.0, 1.0, len(chosen))[1:-1]])[: len(chosen)]
    return chosen[_farthest_first(level)]


def _farthest_first(levels: FloatArray) -> list[int]:
    """Return positions of the lowest level, then always that farthest from those before."""
    order = [0][: len(levels)]
    while len(order) < len(levels):
        gaps = np.abs(levels[:, None] - levels[order]).min(axis=1)
        order.append(int(np.argmax(gaps)))
    return order


def _variance(known: FloatArray, new: FloatArray, prior: FloatArray) -> FloatArray:
    """Return the variance of the linear part of new rows, given known ones."""
    kernel = known @ prior @ known.T + _NOISE * np.eye(len(known))
    cross = new @ prior @ known.T
    explained = np.einsum("ij,ij->i", cross, np.linalg.solve(kernel, cross.T).T)
    variance: FloatArray = np.einsum("ij,ij->i", new @ prior, new) - explained
    return variance


def _leaning(space: SearchSpace, level: float, rng: np.random.Generator) -> Architectures:
    """Return architectures with ordered choices near one level and random unordered ones."""
    kinds = kind_indices(space)
    place = np.linspace(-1.0, 1.0, len(kinds))
    offsets, slopes = rng.standard_normal((2, _POOL, kinds.max() + 1))
    common = rng.standard_normal((_POOL, 1))
    lean = offsets[:, kinds] + (slopes[:, kinds] + common) * place
    lean *= _TILT / np.abs(lean).max(axis=1, keepdims=True)
    levels = np.clip(level + lean - lean.mean(axis=1, keepdims=True), 0.0, 1.0)
    n_options = np.array([len(choice.options) for choice in space.choices])
    ordered = np.array([choice.ordered for choice in space.choices])
    anywhere = rng.integers(n_options, size=levels.shape)
    graded = np.floor(levels * (n_options - 1) + rng.random(levels.shape)).astype(np.int64)
    return space.from_indices(np.where(ordered, graded, anywhere)).unique()
