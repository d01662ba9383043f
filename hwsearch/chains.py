"""Every block spec of a search space, and which choices decide where it stands.

A family says only what the chain of one architecture is. Which choices decide a block is found by
trying: where two architectures agree in all choices that are known to decide it and yet have
another block there, the choices between the two are changed one after another until it changes.
Then the combinations of these choices are all there is to a block, however large the space.
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
_CALM = 150  # architectures in a row that teach nothing new
_CHECKED = 50


class ChainIndex:
    """The blocks of all architectures of a space, by number.

    Args:
        space: The search space.
        blocks: Gives an architecture's chain of blocks.
        seed: Draws the architectures that are tried.

    Attributes:
        space: The search space.
        specs: Every block spec that an architecture can have, each once.
        macs: (n_specs,) multiply-accumulates of each.
        examples: (n_specs) architectures that have them.
        places: Names of blocks, one for each column of `numbers`.
        deciding: Positions of the choices that decide each place, ascending.
        tables: For each place, the number of the spec by the options of these choices; -1 where
            there is no such block, -2 for options that no architecture has.

    Raises:
        InputError: An architecture is no chain of blocks, a block is decided by too many choices,
            or a chain repeats a name.
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
        self.macs: IntArray = np.array(trial.macs, dtype=np.int64)
        self.examples = space.from_indices(np.stack(trial.examples))
        self.places = list(trial.places)
        self.deciding = [tuple(sorted(place.columns)) for place in trial.places.values()]
        self.tables: list[IntArray] = [place.dense(space) for place in trial.places.values()]

    def numbers(self, archs: Architectures) -> IntArray:
        """Return which spec stands at every place.

        Args:
            archs: n architectures.

        Returns:
            (n, n_places) positions in ``specs``, -1 where an architecture has no such block.

        Raises:
            InputError: They are of another space, or have a block that is not known.
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
        """Return how often every spec is in every architecture: (n, n_specs)."""
        numbers = self.numbers(archs)
        counts = np.zeros((len(archs), len(self.specs) + 1))
        np.add.at(counts, (np.arange(len(archs))[:, np.newaxis], numbers), 1.0)
        return counts[:, :ABSENT]


def with_conditions(space: SearchSpace, columns: Sequence[int]) -> tuple[int, ...]:
    """Return positions of choices and of all that their being active depends on, ascending."""
    position = {name: column for column, name in enumerate(space.names)}
    found, waiting = set(columns), list(columns)
    while waiting:
        active = space.choices[waiting.pop()].active
        if active is not None and position[active[0]] not in found:
            found.add(position[active[0]])
            waiting.append(position[active[0]])
    return tuple(sorted(found))


class _Place:
    """What is known of the block of one name.

    Attributes:
        columns: Positions of the choices that decide it, as far as they are known.
        seen: Options of these choices -> number of the spec there, and a row that has it.
    """

    def __init__(self) -> None:
        self.columns: list[int] = []
        self.seen: dict[bytes, tuple[int, IntArray]] = {}

    def key(self, row: IntArray) -> bytes:
        return row[self.columns].tobytes()

    def dense(self, space: SearchSpace) -> IntArray:
        """Numbers by the options of the sorted columns."""
        columns = sorted(self.columns)
        table = np.full([len(space.choices[column].options) for column in columns], UNSEEN)
        for number, row in self.seen.values():
            table[tuple(row[columns])] = number
        return table


class _Trial:
    """Architectures tried so far, and what they say of every place."""

    def __init__(self, space: SearchSpace, blocks: BlocksOf) -> None:
        self._space, self._blocks = space, blocks
        self.numbers: dict[BlockSpec, int] = {}
        self.macs: list[int] = []
        self.examples: list[IntArray] = []
        self.places: dict[str, _Place] = {}
        self._rows: dict[bytes, tuple[IntArray, dict[str, int]]] = {}

    def settle(self, rng: np.random.Generator) -> None:
        """Try random architectures and neighbours of theirs until they teach nothing new."""
        calm = 0
        while calm < _CALM:
            base = self._space.sample(1, rng)
            for arch in (base, self._space.mutate(base, rng)):
                calm = 0 if self.learn(arch.indices[0]) else calm + 1

    def check(self, rng: np.random.Generator) -> bool:
        """Whether random architectures are as expected, with no new spec among them."""
        return not any(self.learn(row) for row in self._space.sample(_CHECKED, rng).indices)

    def try_combinations(self, rng: np.random.Generator) -> bool:
        """Try every combination of what decides each place; False once a new choice does."""
        waiting = {name: self._combinations(name) for name in list(self.places)}
        while True:
            for name, (columns, rows) in waiting.items():
                place = self.places[name]
                new = np.array([place.key(row) not in place.seen for row in rows], dtype=bool)
                waiting[name] = columns, rows[new]
            waiting = {name: left for name, left in waiting.items() if len(left[1])}
            if not waiting:
                return True
            if self.learn(self._joined(waiting, rng), only_choices=True):
                return False

    def learn(self, row: IntArray, *, only_choices: bool = False) -> bool:
        """Note an architecture; whether a new deciding choice, or else a new block, was found."""
        before = len(self.numbers)
        chain = self._chain(row)
        for name in chain:
            if name not in self.places:
                self.places[name] = _Place()
                for other, blocks in list(self._rows.values()):
                    self._note(name, other, blocks.get(name, ABSENT))
        found = False
        for name in list(self.places):
            found |= self._note(name, row, chain.get(name, ABSENT))
        return found or (not only_choices and len(self.numbers) > before)

    def _note(self, name: str, row: IntArray, number: int) -> bool:
        """Note what stands at a place; whether another choice had to be blamed for it."""
        place = self.places[name]
        known, other = place.seen.setdefault(place.key(row), (number, row))
        if known == number:
            return False
        while known != number:
            self._blame(name, other, row)
            known, other = place.seen.setdefault(place.key(row), (number, row))
        return True

    def _blame(self, name: str, a: IntArray, b: IntArray) -> None:
        """Find a choice that alone changes a place between two architectures."""
        place = self.places[name]
        before = self._chain(a).get(name, ABSENT)
        low, high = 0, len(a)
        while high - low > 1:
            middle = (low + high) // 2
            between = self._canonical(np.concatenate([b[:middle], a[middle:]]))
            if self._chain(between).get(name, ABSENT) == before:
                low = middle
            else:
                high = middle
        place.columns.append(high - 1)
        place.seen = {}
        for row, blocks in list(self._rows.values()):
            self._note(name, row, blocks.get(name, ABSENT))

    def _chain(self, row: IntArray) -> dict[str, int]:
        """Name -> number of the spec, for every block of an architecture."""
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
                if block.spec not in self.numbers:
                    self.numbers[block.spec] = len(self.macs)
                    self.macs.append(block.macs)
                    self.examples.append(row)
                chain[block.name] = self.numbers[block.spec]
            self._rows[key] = row, chain
        return self._rows[key][1]

    def _canonical(self, row: IntArray) -> IntArray:
        canonical: IntArray = self._space.from_indices(row[np.newaxis]).indices[0]
        return canonical

    def _combinations(self, name: str) -> tuple[list[int], IntArray]:
        """Columns that decide a place and those they depend on, and rows with every combination.

        Choices besides these are at their first option in the rows.
        """
        choices = self._space.choices
        ordered = list(with_conditions(self._space, self.places[name].columns))
        if not ordered:
            return [], np.zeros((1, len(choices)), np.int64)
        part = SearchSpace(choices[column] for column in ordered)
        if part.size > MAX_COMBINATIONS:
            raise InputError(
                f"block {name!r} is decided by {len(ordered)} choices "
                f"({', '.join(part.names[:3])}, ...) with {part.size:.3g} combinations, more than "
                f"{MAX_COMBINATIONS:,}; restrict the space by 'freeze' or 'only' rules"
            )
        rows = np.zeros((part.size, len(choices)), np.int64)
        rows[:, ordered] = part.enumerate(part.size).indices
        return ordered, rows

    def _joined(
        self, waiting: dict[str, tuple[list[int], IntArray]], rng: np.random.Generator
    ) -> IntArray:
        """One architecture with an untried combination at as many places as agree."""
        taken = np.full(len(self._space.choices), ABSENT)
        names = list(waiting)
        for number in rng.permutation(len(names)):
            columns, rows = waiting[names[number]]
            asked = taken[columns]
            agrees = (rows[:, columns] == asked) | (asked == ABSENT)
            fitting = np.flatnonzero(agrees.all(axis=1))
            if len(fitting):
                taken[columns] = rows[fitting[0], columns]
        other = self._space.sample(1, rng).indices[0]
        return self._canonical(np.where(taken == ABSENT, other, taken))
