"""Experimental designs: the subnets to measure for a latency table or a new device."""

from collections.abc import Callable, Collection
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.blocks import BlockSpec
from hwsearch.chains import ChainIndex, with_conditions
from hwsearch.encoding import onehot
from hwsearch.errors import InputError
from hwsearch.prediction.base import BoolArray, FloatArray
from hwsearch.space import Architectures, SearchSpace, Seed

Sizes = Callable[[Architectures], ArrayLike]

_POOL: Final = 48
_CLIMBS: Final = 12
_GRADED: Final = 200
_DRAWN: Final = 2000


def covering_subnets(
    index: ChainIndex, specs: Collection[BlockSpec], *, repeats: int, seed: Seed
) -> Architectures:
    """Choose few subnets that together hold every block spec several times (greedy set cover).

    Each is found by hill climbing from architectures that hold the rarest spec, and holds as many
    uncovered specs as possible. The ones that cover most come first; a spec is in fewer than
    ``repeats`` where the space has fewer.
    """
    rng = np.random.default_rng(seed)
    place = {spec: number for number, spec in enumerate(index.specs)}
    wanted = np.zeros(len(index.specs))
    wanted[[place[spec] for spec in specs]] = repeats
    chosen = index.space.sample(0, rng)
    while wanted.any():
        neediest = int(rng.choice(np.flatnonzero(wanted == wanted.max())))
        found = _climbed(index, wanted, neediest, chosen, rng)
        if found is None:
            wanted[neediest] = 0.0  # every subnet that holds it is chosen
            continue
        chosen = Architectures.concatenate([chosen, found])
        wanted = np.maximum(wanted - _held(index, found)[0], 0.0)
    return chosen


def choose_subnets(
    space: SearchSpace,
    n: int,
    sizes: Sizes,
    *,
    seed: Seed,
    exclude: Architectures | None = None,
) -> Architectures:
    """Choose n subnets, or all of a smaller space, spread evenly over size and over options.

    Sizes go from the smallest to the largest of a few thousand candidates; among candidates of
    about one size, the one with most options that the others lack is taken. ``sizes`` returns
    numbers that grow with latency, such as predicted latencies.
    """
    if n < 1:
        raise InputError(f"cannot choose {n} subnets to measure; ask for 1 or more")
    rng = np.random.default_rng(seed)
    pool = Architectures.concatenate(
        [space.sample_spread(_GRADED, rng), space.sample(max(_DRAWN, 10 * n), rng)]
    ).unique(exclude)
    if len(pool) <= n:
        return pool
    size = np.asarray(sizes(pool), dtype=np.float64)
    encoded = onehot(pool)
    seen = np.zeros(encoded.shape[1])
    left = np.ones(len(pool), dtype=np.bool_)
    for target in rng.permutation(np.linspace(size.min(), size.max(), n)):
        best = _most_new(np.abs(size - target), left, encoded, seen, n)
        seen += encoded[best]
        left[best] = False
    chosen = np.flatnonzero(~left)
    return pool[chosen[np.argsort(size[chosen])]]


def _held(index: ChainIndex, archs: Architectures) -> FloatArray:
    """Return 1 where a subnet holds a spec, else 0: (n, n_specs)."""
    return np.minimum(index.counts(archs), 1.0)


def _climbed(
    index: ChainIndex,
    wanted: FloatArray,
    neediest: int,
    chosen: Architectures,
    rng: np.random.Generator,
) -> Architectures | None:
    """Return the best subnet with one spec that is not chosen yet; None where none was found."""
    best: Architectures | None = None
    for climb in range(_CLIMBS):
        if best is None or climb == 0:
            pool = _with_spec(index, neediest, rng)
        else:
            pool = index.space.mutate(best[np.zeros(_POOL, dtype=np.intp)], rng)
            pool = Architectures.concatenate([best, pool])
        pool = pool.unique(chosen)
        held = _held(index, pool)
        pool, held = pool[held[:, neediest] > 0], held[held[:, neediest] > 0]
        if len(pool):
            best = pool[[int(np.argmax(held @ wanted))]]
    return best


def _with_spec(index: ChainIndex, spec: int, rng: np.random.Generator) -> Architectures:
    """Return random architectures with one block spec, an example first."""
    example = index.examples[[spec]]
    place = int(np.argmax(index.numbers(example)[0] == spec))
    columns = list(with_conditions(index.space, index.deciding[place]))
    rows = index.space.sample(_POOL, rng).indices.copy()
    rows[:, columns] = example.indices[:, columns]
    return Architectures.concatenate([example, index.space.from_indices(rows)])


def _most_new(
    distance: FloatArray, left: BoolArray, encoded: FloatArray, seen: FloatArray, n: int
) -> int:
    """Return the nearest remaining candidate with most options that few have."""
    nearest = np.flatnonzero(left)
    nearest = nearest[np.argsort(distance[nearest], kind="stable")]
    nearest = nearest[: max(len(nearest) // (4 * n), 1)]
    return int(nearest[np.argmax(encoded[nearest] @ (1.0 / (1.0 + seen)))])
