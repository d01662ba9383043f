"""Choices, and the forest of their conditions: counting and uniform sampling.

A choice may be active only under some options of one other choice, so the choices form a forest.
Given the option of a parent its subtrees are independent, so that distinct architectures are
counted exactly and sampled uniformly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwsearch.errors import InputError, unknown

Option: TypeAlias = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One named choice of a search space.

    Attributes:
        name: Unique in its space; printable text without ``=``.
        options: Distinct values, ascending where they are numbers: the first ones make the
            smallest architecture, the last ones the largest.
        active: The parent choice and those of its options under which this choice is active;
            ``None`` for a choice that always is. Under an inactive parent it is inactive.

    Raises:
        InputError: The name, an option or the condition is invalid.
    """

    name: str
    options: tuple[Option, ...]
    active: tuple[str, tuple[Option, ...]] | None = None

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not name.isprintable() or not name or "=" in name:
            raise InputError(
                f"choice name {self.name!r} is not usable; give a text that is not empty, all "
                "printable and without '='"
            )
        what = f"choice {self.name!r}"
        object.__setattr__(self, "options", _checked_options(self.options, what))
        if self.active is not None:
            object.__setattr__(self, "active", _checked_condition(self.active, what))

    @property
    def ordered(self) -> bool:
        """Return whether all options are increasing numbers (``bool`` is none)."""
        numbers = [o for o in self.options if not isinstance(o, str | bool)]
        return len(numbers) == len(self.options) and numbers == sorted(numbers)

    @property
    def condition(self) -> str:
        """Return the condition in words: ``stage1.depth is 3 or 4``, or ``always``."""
        if self.active is None:
            return "always"
        parent, options = self.active
        return f"{parent} is {' or '.join(map(repr, options))}"

    def index(self, option: object) -> int:
        """Return the position of an option, or raise InputError; 3.0 is 3, ``True`` is not 1."""
        given = option.item() if isinstance(option, np.generic) else option
        if isinstance(given, int | float | str):
            for position, known in enumerate(self.options):
                if known == given and isinstance(known, bool) == isinstance(given, bool):
                    return position
        raise unknown(f"option of choice {self.name!r}", option, self.options)


class Forest:
    """The conditions of choices: which are active, number of architectures, uniform sampling.

    Arrays of indices are (n, number of choices) int64: option positions, in range.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        most = max(len(choice.options) for choice in choices)
        self._parents = np.arange(len(choices))  # a choice that is always active is its own
        self._activating = np.ones((len(choices), most), dtype=np.bool_)  # by the parent's option
        depths = np.zeros(len(choices), dtype=np.int64)
        names = [choice.name for choice in choices]
        for position, choice in enumerate(choices):
            if choice.name in names[:position]:
                raise InputError(f"two choices are named {choice.name!r}; names must be distinct")
            if choice.active is not None:
                name, options = choice.active
                if name not in names:
                    raise unknown(f"parent of choice {choice.name!r}", name, names)
                parent = names.index(name)
                if parent >= position:
                    raise InputError(
                        f"choice {choice.name!r} does not come after its parent {name!r}; list "
                        "parents first"
                    )
                self._parents[position] = parent
                activating = [choices[parent].index(option) for option in options]
                self._activating[position] = np.isin(np.arange(most), activating)
                depths[position] = depths[parent] + 1
        self._nested = [np.flatnonzero(depths == depth) for depth in range(2, depths.max() + 1)]

    @cached_property
    def size(self) -> int:
        """Return the exact number of distinct architectures."""
        return math.prod(
            sum(ways)
            for position, ways in enumerate(self._completions)
            if self._parents[position] == position
        )

    def active(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which choices are active, (n, number of choices)."""
        rows = np.arange(len(self._parents)) * self._activating.shape[1]
        active = self._activating.take(rows + indices.take(self._parents, axis=1))
        for columns in self._nested:
            active[:, columns] &= active[:, self._parents[columns]]
        return active

    def draw(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw indices, including those of inactive choices.

        With inactive choices set to 0 they are uniform over the distinct architectures.
        """
        uniform = rng.random((len(self._choices), n))
        indices: npt.NDArray[np.int64] = (uniform >= self._cuts[:, :, np.newaxis]).sum(axis=0).T
        return indices

    @cached_property
    def _completions(self) -> list[list[int]]:
        """Return, per choice and option, the number of assignments of the choices below it."""
        ways = [[1] * len(choice.options) for choice in self._choices]
        for position in reversed(range(len(ways))):
            parent = self._parents[position]
            if parent != position:
                for option in np.flatnonzero(self._activating[position]):
                    ways[parent][option] *= sum(ways[position])
        return ways

    @cached_property
    def _cuts(self) -> npt.NDArray[np.float64]:
        """Return (most options - 1, number of choices) thresholds in [0, 1] between options."""
        cuts = np.ones((self._activating.shape[1] - 1, len(self._choices)))
        for column, ways in enumerate(self._completions):
            for option in range(len(ways) - 1):
                cuts[option, column] = sum(ways[: option + 1]) / sum(ways)
        return cuts


def _checked_options(options: object, what: str) -> tuple[Option, ...]:
    """Return plain Python values: keys and JSON must not depend on NumPy's or an enum's repr."""
    if isinstance(options, str) or not isinstance(options, Sequence | np.ndarray):
        raise InputError(f"{what}: the options are {options!r}; give a tuple of them")
    plain = tuple(o.item() if isinstance(o, np.generic) else o for o in options)
    if not plain:
        raise InputError(f"{what}: there are no options; give at least one")
    for option in plain:
        if type(option) not in (int, float, str, bool):
            raise InputError(f"{what}: option {option!r} is not a plain number, text or bool")
        if isinstance(option, float) and not math.isfinite(option):
            raise InputError(f"{what}: option {option!r} is not finite")
    if len(set(plain)) < len(plain):
        raise InputError(f"{what}: the options {plain!r} are not distinct")
    return plain


def _checked_condition(active: object, what: str) -> tuple[str, tuple[Option, ...]]:
    match active:
        case (str(parent), options):
            return parent, _checked_options(options, f"{what}, condition on {parent!r}")
    raise InputError(f"{what}: active is {active!r}; give (name of the parent, its options)")
