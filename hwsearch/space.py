"""Search spaces: counting, sampling, mutation and crossover of architectures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hwsearch.architectures import Architecture, Architectures
from hwsearch.choices import Choice, Forest, Option
from hwsearch.errors import InputError, unknown
from hwsearch.files import digest_of_text, parsed_json

__all__ = ["Architecture", "Architectures", "Choice", "Option", "SearchSpace", "Seed"]

Seed: TypeAlias = int | np.random.Generator

_MAX_ROUNDS = 64
_GOLDEN_RATIO = (5**0.5 - 1) / 2


class SearchSpace:
    """An ordered list of choices, each after the parent that it depends on.

    Attributes:
        choices: The choices; column j of every array here belongs to choice j.
        size: Exact number of distinct architectures.

    Raises:
        InputError: There is no choice, a name occurs twice, a parent is unknown or does not
            come earlier, or a condition names an option that the parent does not have.
    """

    def __init__(self, choices: Iterable[Choice]) -> None:
        self.choices = tuple(choices)
        self.names = [choice.name for choice in self.choices]
        if not self.choices:
            raise InputError("a search space needs at least one choice; none was given")
        self._forest = Forest(self.choices)
        self.size = self._forest.size
        self._known_names = frozenset(self.names)
        self._n_options = np.array([len(choice.options) for choice in self.choices])

    @cached_property
    def digest(self) -> str:
        """Return 16 hex digits that identify this space, including the order of its choices."""
        return digest_of_text(self.to_json())

    def architectures(
        self, mappings: Mapping[str, object] | Iterable[Mapping[str, object]]
    ) -> Architectures:
        """Build architectures from mappings of choice names to options.

        Inactive choices may be absent; if given, they are ignored. InputError is raised for an
        unknown choice or option, and for an active choice that is absent.
        """
        rows = [mappings] if isinstance(mappings, Mapping) else list(mappings)
        indices = np.array([self._row(row) for row in rows], dtype=np.int64)
        archs = self._canonical(np.maximum(indices.reshape(-1, len(self.choices)), 0))
        absent = (indices.reshape(archs.active.shape) < 0) & archs.active
        if absent.any():
            choice = self.choices[int(np.argwhere(absent)[0, 1])]
            raise InputError(
                f"choice {choice.name!r} is not given, but active ({choice.condition}); "
                f"its options: {', '.join(map(repr, choice.options))}"
            )
        return archs

    def from_indices(self, indices: npt.ArrayLike) -> Architectures:
        """Build architectures from positions of options, (n, n_choices); InputError if invalid."""
        array = np.asarray(indices)
        expected = f"integers of shape (n, {len(self.choices)})"
        if array.ndim != 2 or array.shape[1] != len(self.choices):
            raise InputError(f"indices have shape {array.shape}; give {expected}")
        if not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"indices are of type {array.dtype}; give {expected}")
        wrong = (array < 0) | (array >= self._n_options)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            choice = self.choices[column]
            raise InputError(
                f"index {array[row, column]} in row {row} is out of range: choice "
                f"{choice.name!r} has {len(choice.options)} options, {choice.options!r}"
            )
        return self._canonical(array.astype(np.int64))

    def restrict(self, options: Mapping[str, Sequence[Option]]) -> SearchSpace:
        """Return the part of this space in which choices have fewer options.

        An architecture has the same mapping and key in both. Choices that can no longer become
        active are left out.

        ``options`` maps a choice to its remaining options, at least one; absent choices keep
        theirs. InputError is raised for an unknown choice or option.
        """
        for name in options:
            if name not in self._known_names:
                raise unknown("choice", name, self.names)
        left: dict[str, tuple[Option, ...]] = {}
        choices: list[Choice] = []
        for choice in self.choices:
            kept = {choice.index(option) for option in options.get(choice.name, choice.options)}
            active = choice.active
            if active is not None:
                parent, activating = active
                active = (parent, tuple(o for o in left.get(parent, ()) if o in activating))
                if not active[1]:
                    continue
            left[choice.name] = tuple(choice.options[position] for position in sorted(kept))
            choices.append(Choice(choice.name, left[choice.name], active))
        return self.derived(choices)

    def derived(self, choices: Iterable[Choice]) -> SearchSpace:
        """Return a space of other choices; a subclass returns its own class."""
        return SearchSpace(choices)

    def sample(self, n: int, seed: Seed) -> Architectures:
        """Draw n >= 0 architectures, with replacement, uniformly over the distinct ones."""
        return self._canonical(self._forest.draw(_count(n), np.random.default_rng(seed)))

    def sample_distinct(
        self, n: int, seed: Seed, exclude: Architectures | None = None
    ) -> Architectures:
        """Draw n >= 0 distinct architectures, none of ``exclude``; fewer if fewer remain."""
        rng = np.random.default_rng(seed)
        n_excluded = 0 if exclude is None else len(exclude)
        if self.size <= 2 * (_count(n) + n_excluded):
            everything = self.enumerate(self.size)
            return everything[rng.permutation(self.size)].unique(exclude)[:n]
        found = self.sample(0, rng)
        for _ in range(_MAX_ROUNDS):  # every draw is new with a chance above one half
            draws = [found, self.sample(2 * n, rng)]
            found = Architectures.concatenate(draws).unique(exclude)[:n]
            if len(found) == n:
                break
        return found

    def sample_spread(self, n: int, seed: Seed) -> Architectures:
        """Return n >= 1 distinct architectures graded by size; fewer if the space has fewer.

        From the smallest to the largest in even steps: every ordered choice is near one relative
        position, rounded up or down at random; unordered choices are random.
        """
        if n < 1:
            raise InputError(f"cannot spread {n} architectures over the sizes; ask for 1 or more")
        rng = np.random.default_rng(seed)
        n = min(n, self.size)
        found, last = self.smallest(), self.largest()
        for position in np.linspace(0.0, 1.0, n)[1:-1]:
            used = Architectures.concatenate([found, last])
            found = Architectures.concatenate([found, self._balanced(float(position), used, rng)])
        return found if n == 1 else Architectures.concatenate([found, last])

    def smallest(self) -> Architectures:
        """Return the one architecture with the first option everywhere."""
        return self._canonical(np.zeros((1, len(self.choices)), dtype=np.int64))

    def largest(self) -> Architectures:
        """Return the one architecture with the last option everywhere."""
        return self._canonical(self._n_options[np.newaxis] - 1)

    def enumerate(self, limit: int) -> Architectures:
        """Return all architectures by ascending indices; raise InputError above ``limit``."""
        if self.size > limit:
            raise InputError(
                f"the space has {_readable(self.size)} architectures, more than the limit of "
                f"{limit}; sample it instead"
            )
        indices = np.zeros((1, len(self.choices)), dtype=np.int64)
        for column, n_options in enumerate(self._n_options):
            copies = np.where(self._forest.active(indices)[:, column], n_options, 1)
            first = np.repeat(np.cumsum(copies) - copies, copies)
            indices = np.repeat(indices, copies, axis=0)
            indices[:, column] = np.arange(len(indices)) - first
        return self._canonical(indices)

    def mutate(
        self, archs: Architectures, rng: np.random.Generator, rate: float | None = None
    ) -> Architectures:
        """Change every architecture in at least one active choice.

        ``rate`` is the probability of every active choice to change, in [0, 1]; by default 1 over
        their number. Choices that become active are drawn.
        """
        self.check_own(archs)
        if rate is not None and not 0.0 <= rate <= 1.0:
            raise InputError(f"mutation rate {rate!r} is out of range; give 0 to 1")
        changeable = archs.active & (self._n_options > 1)
        chance = 1.0 / np.maximum(changeable.sum(axis=1, keepdims=True), 1)
        uniform = np.where(changeable, rng.random(changeable.shape), np.inf)
        mutated = uniform < (chance if rate is None else rate)
        mutated[np.arange(len(archs)), uniform.argmin(axis=1)] = True
        shift = rng.integers(1, np.maximum(self._n_options, 2), size=mutated.shape)
        indices = np.where(archs.active, archs.indices, self._forest.draw(len(archs), rng))
        rows, columns = np.nonzero(mutated & changeable)
        indices[rows, columns] += shift[rows, columns]
        indices[rows, columns] %= self._n_options[columns]
        return self._canonical(indices)

    def crossover(
        self, a: Architectures, b: Architectures, rng: np.random.Generator
    ) -> Architectures:
        """Return a child of every pair (a[i], b[i]) by uniform crossover.

        A choice that is active in only one parent comes from that parent.
        """
        self.check_own(a)
        self.check_own(b)
        if len(a) != len(b):
            raise InputError(f"cannot cross {len(a)} architectures with {len(b)}; give as many")
        coin = rng.random(a.active.shape) < 0.5
        from_a = a.active & (coin | ~b.active)
        return self._canonical(np.where(from_a, a.indices, b.indices))

    def to_json(self) -> str:
        """Return the space as JSON; ``from_json`` reads it back."""
        choices: list[dict[str, Any]] = []
        for choice in self.choices:
            choices.append({"name": choice.name, "options": choice.options})
            if choice.active is not None:
                choices[-1]["active"] = choice.active
        return json.dumps({"choices": choices})

    @classmethod
    def from_json(cls, text: str) -> SearchSpace:
        """Read a space that ``to_json`` wrote; raise InputError for other text."""
        try:
            return cls(Choice(**choice) for choice in parsed_json(text)["choices"])
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"this is not the JSON of a search space: {error!r}") from error

    def check_own(self, archs: Architectures) -> None:
        """Raise InputError if architectures belong to another space."""
        if archs.space != self:
            raise InputError(
                f"these architectures belong to another space: {archs.space!r}, not {self!r}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SearchSpace):
            return NotImplemented
        return self is other or self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"SearchSpace({len(self.choices)} choices, {_readable(self.size)} architectures)"

    def _row(self, mapping: Mapping[str, object]) -> list[int]:
        if not isinstance(mapping, Mapping):
            raise InputError(f"{mapping!r} is no mapping of choice names to options; give a dict")
        for name in mapping:
            if name not in self._known_names:
                raise unknown("choice", name, self.names)
        return [
            choice.index(mapping[choice.name]) if choice.name in mapping else -1
            for choice in self.choices
        ]

    def _canonical(self, indices: npt.NDArray[np.int64]) -> Architectures:
        active = self._forest.active(indices)
        return Architectures(self, np.where(active, indices, 0), active)

    def _balanced(
        self, position: float, used: Architectures, rng: np.random.Generator
    ) -> Architectures:
        """Return one unused architecture near a relative position.

        The rounding offsets of choices with equally many options are a low-discrepancy sequence
        (multiples of the golden ratio), so that roundings cancel in the sum; the offsets widen
        with every unsuccessful attempt.
        """
        n_choices = len(self.choices)
        ordered = np.array([choice.ordered for choice in self.choices])
        offsets = np.empty(n_choices)
        for attempt in range(_MAX_ROUNDS):
            order = np.lexsort((rng.random(n_choices), self._n_options))
            offsets[order] = (np.arange(n_choices) * _GOLDEN_RATIO + rng.random()) % 1.0
            widened = 0.5 + (offsets - 0.5) * (1.0 + attempt / 8)
            near = np.floor(position * (self._n_options - 1) + widened)
            random = rng.integers(self._n_options)
            indices = np.where(ordered, near.clip(0, self._n_options - 1), random)
            found = self._canonical(indices.astype(np.int64)[np.newaxis]).unique(used)
            if len(found):
                return found
        return self.sample_distinct(1, rng, exclude=used)


def _count(n: int) -> int:
    if n < 0:
        raise InputError(f"cannot draw {n} architectures; ask for 0 or more")
    return n


def _readable(size: int) -> str:
    return f"{size:,}" if size < 1_000_000 else f"{Decimal(size):.2e}"
