"""The block index of a search space: every block spec, and the choices that decide each block.

A family gives the chain of one architecture only. The choices that decide a block are found by
trial: where two architectures agree in all choices known to decide a block and still differ in
it, bisection over the other choices finds one more. All combinations of the deciding choices are
then tried, so that one table per block covers the space, however large it is.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hwsearch.blocks import Block, BlockSpec
from hwsearch.errors import InputError
from hwsearch.space import Architecture, Architectures, SearchSpace

BlocksOf: TypeAlias = Callable[[Architecture], Sequence[Block] | None]
IntArray: TypeAlias = NDArray[np.int64]

MAX_COMBINATIONS = 100_000
ABSENT = -1
UNSEEN = -2
_QUIET = 150  # architectures in a row that reveal no further deciding choice
_CHECKED = 100


class ChainIndex:
    """The blocks of all architectures of a space, by number.

    ``specs`` has every block spec of the space once; ``macs`` (for one sample), ``params`` and
    ``examples`` (architectures) are (n_specs,). ``places`` are the names of blocks, one for each
    column of `numbers`; ``deciding`` has the ascending positions of the choices that decide each
    place. ``tables`` has, for each place, the spec's number by the options of these choices; -1
    where there is no such block, -2 for options that no architecture has.

    Raises:
        InputError: An architecture is no chain of blocks, a block is decided by too many choices,
            a chain repeats a name, or blocks of equal specs differ in their costs.
    """

    def __init__(self, space: SearchSpace, blocks: BlocksOf, seed: int = 0) -> None:
        trial = _Trial(space, blocks)
        rng = np.random.default_rng(seed)
        for arch in (space.smallest(), space.largest()):
            trial.learn(arch.indices[0])
        settled = False
        while not settled:
            trial.settle(rng)
            settled = trial.try_combinations(rng) and trial.check(rng)
        self.space = space
        self.specs: list[BlockSpec] = list(trial.numbers)
        self.macs, self.params = np.array(trial.costs, dtype=np.int64).T
        self.examples = space.from_indices(np.stack(trial.examples))
        self.places = list(trial.places)
        self.deciding = [tuple(sorted(place.columns)) for place in trial.places.values()]
        self.tables: list[IntArray] = [place.dense(space) for place in trial.places.values()]

    def numbers(self, archs: Architectures) -> IntArray:
        """Return (n, n_places) positions in ``specs``, -1 for no block.

        InputError is raised for an unknown block and for another space.
        """
        self.space.check_own(archs)
        columns = zip(self.deciding, self.tables, strict=True)
        numbers = np.empty((len(archs), len(self.places)), np.int64)
        for place, (where, table) in enumerate(columns):
            numbers[:, place] = table[tuple(archs.indices[:, list(where)].T)]
        if (numbers == UNSEEN).any():
            row, place = np.argwhere(numbers == UNSEEN)[0]
            raise InputError(
                f"block {self.places[place]!r} of {archs[int(row)].key} is decided by other "
                "choices than those found by trying; its family's blocks(arch) must be a function "
                "of the architecture alone"
            )
        return numbers

    def counts(self, archs: Architectures) -> NDArray[np.float64]:
        """Return the number of blocks with each spec: (n, n_specs)."""
        numbers = self.numbers(archs)
        counts = np.zeros((len(archs), len(self.specs) + 1))
        np.add.at(counts, (np.arange(len(archs))[:, np.newaxis], numbers), 1.0)
        return counts[:, :ABSENT]


def with_conditions(space: SearchSpace, columns: Sequence[int]) -> tuple[int, ...]:
    """Return positions of choices and of their (transitive) parents, ascending."""
    found = set(columns)
    for column in reversed(range(len(space.choices))):  # parents come before their children
        active = space.choices[column].active
        if column in found and active is not None:
            found.add(space.names.index(active[0]))
    return tuple(sorted(found))


class _Place:
    """The block of one name: the choices found to decide it, and the specs seen there."""

    def __init__(self) -> None:
        self.columns: list[int] = []
        self.seen: dict[bytes, tuple[int, IntArray]] = {}

    def key(self, row: IntArray) -> bytes:
        return row[self.columns].tobytes()

    def dense(self, space: SearchSpace) -> IntArray:
        columns = sorted(self.columns)
        table = np.full([len(space.choices[column].options) for column in columns], UNSEEN)
        for number, row in self.seen.values():
            table[tuple(row[columns])] = number
        return table


_Combinations: TypeAlias = tuple[list[int], IntArray]
"""Positions of choices, and (n, number of choices) indices with their combinations."""


class _Trial:
    """The architectures tried so far and their blocks, by number of the spec."""

    def __init__(self, space: SearchSpace, blocks: BlocksOf) -> None:
        self._space, self._blocks = space, blocks
        self.numbers: dict[BlockSpec, int] = {}
        self.costs: list[tuple[int, int]] = []
        self.examples: list[IntArray] = []
        self.places: dict[str, _Place] = {}
        self._rows: dict[bytes, tuple[IntArray, dict[str, int]]] = {}

    def settle(self, rng: np.random.Generator) -> None:
        """Try random architectures and their neighbours until no deciding choice is found."""
        quiet = 0
        while quiet < _QUIET:
            base = self._space.sample(1, rng)
            for arch in (base, self._space.mutate(base, rng)):
                quiet = 0 if self.learn(arch.indices[0]) else quiet + 1

    def check(self, rng: np.random.Generator) -> bool:
        """Return whether random architectures reveal no deciding choice and no new spec."""
        before = len(self.numbers)
        found = [self.learn(row) for row in self._space.sample(_CHECKED, rng).indices]
        return not any(found) and len(self.numbers) == before

    def try_combinations(self, rng: np.random.Generator) -> bool:
        """Try all combinations of deciding choices; return False if one more choice decides."""
        waiting = [self._untried(name) for name in self.places]
        while waiting := [(columns, rows) for columns, rows in waiting if len(rows)]:
            row = self._joined(waiting, rng)
            if self.learn(row):
                return False
            waiting = [
                (columns, rows[(rows[:, columns] != row[columns]).any(axis=1)])
                for columns, rows in waiting
            ]
        return True

    def learn(self, row: IntArray) -> bool:
        """Record an architecture's blocks; return whether a new deciding choice was found."""
        for name in self._chain(row):
            if name not in self.places:
                self.places[name] = _Place()
                self._note_all(name)
        found = [self._note(name, row) for name in self.places]
        return any(found)

    def _note_all(self, name: str) -> None:
        for row, _ in list(self._rows.values()):
            self._note(name, row)

    def _note(self, name: str, row: IntArray) -> bool:
        """Record the spec at a place; return whether a new deciding choice was found."""
        place, number = self.places[name], self._chain(row).get(name, ABSENT)
        known, other = place.seen.setdefault(place.key(row), (number, row))
        if known == number:
            return False
        place.columns.append(self._deciding(name, other, row))
        place.seen = {}
        self._note_all(name)
        return True

    def _deciding(self, name: str, a: IntArray, b: IntArray) -> int:
        """Find by bisection a choice that alone changes a place between two architectures."""
        before = self._chain(a).get(name, ABSENT)
        low, high = 0, len(a)
        while high - low > 1:
            middle = (low + high) // 2
            between = np.concatenate([b[:middle], a[middle:]])[np.newaxis]
            row = self._space.from_indices(between).indices[0]
            if self._chain(row).get(name, ABSENT) == before:
                low = middle
            else:
                high = middle
        return high - 1

    def _chain(self, row: IntArray) -> dict[str, int]:
        """Return block name -> spec number of an architecture."""
        key = row.tobytes()
        if key not in self._rows:
            arch = self._space.from_indices(row[np.newaxis])[0]
            blocks = self._blocks(arch)
            if blocks is None:
                raise InputError(
                    f"subnet {arch.key} is no chain of blocks, so that there are no block specs; "
                    "latencies of this supernet can be learnt from whole subnets only"
                )
            chain: dict[str, int] = {}
            for block in blocks:
                if block.name in chain:
                    raise InputError(f"subnet {arch.key} has two blocks named {block.name!r}")
                chain[block.name] = self._number(block, row)
            self._rows[key] = row, chain
        return self._rows[key][1]

    def _number(self, block: Block, row: IntArray) -> int:
        """Return the number of a block's spec; an unseen spec gets a new one."""
        number, costs = self.numbers.get(block.spec), (block.macs, block.params)
        if number is None:
            number = self.numbers[block.spec] = len(self.costs)
            self.costs.append(costs)
            self.examples.append(row)
        elif self.costs[number] != costs:
            raise InputError(
                f"block {block.name!r} costs {costs[0]:,} MACs and {costs[1]:,} parameters, and "
                f"another block of equal spec {self.costs[number][0]:,} and "
                f"{self.costs[number][1]:,}: {block.spec}; put what differs into the "
                "hyperparameters"
            )
        return number

    def _untried(self, name: str) -> _Combinations:
        """Return the untried combinations of a place's deciding choices and their parents."""
        place, choices = self.places[name], self._space.choices
        columns = list(with_conditions(self._space, place.columns))
        if not columns:
            return columns, np.zeros((0, len(choices)), np.int64)
        part = SearchSpace(choices[column] for column in columns)
        if part.size > MAX_COMBINATIONS:
            raise InputError(
                f"block {name!r} is decided by {len(columns)} choices "
                f"({', '.join(part.names[:3])}, ...) with {part.size:.3g} combinations, more than "
                f"{MAX_COMBINATIONS:,}; restrict the space by 'freeze' or 'only' rules"
            )
        rows = np.zeros((part.size, len(choices)), np.int64)
        rows[:, columns] = part.enumerate(part.size).indices
        new = np.array([place.key(row) not in place.seen for row in rows], dtype=bool)
        return columns, rows[new]

    def _joined(self, waiting: Sequence[_Combinations], rng: np.random.Generator) -> IntArray:
        """Return one architecture that has as many compatible untried combinations as possible."""
        taken = np.full(len(self._space.choices), ABSENT)
        for number in rng.permutation(len(waiting)):
            columns, rows = waiting[number]
            asked = taken[columns]
            agrees = (rows[:, columns] == asked) | (asked == ABSENT)
            fitting = np.flatnonzero(agrees.all(axis=1))
            if len(fitting):
                taken[columns] = rows[fitting[0], columns]
        other = self._space.sample(1, rng).indices
        joined = self._space.from_indices(np.where(taken == ABSENT, other, taken))
        row: IntArray = joined.indices[0]
        return row
