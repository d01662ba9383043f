"""Restriction of a search space by rules in text.

``GLOB=VALUE`` freezes choices at one option, ``GLOB in V1,V2`` leaves several. ``GLOB`` is the
name of a choice or a pattern over names (``stage1.*``). A value is an option (``3``, ``0.25``,
``True``, ``relu``; in quotes where text looks like a number), or, unless that is an option,
``min`` or ``max`` for the first or last remaining option, or ``*`` for all of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from hwsearch.choices import Choice, Option
from hwsearch.errors import InputError, unknown
from hwsearch.space import Architectures, SearchSpace

_IN = re.compile(r"\s+in\s+")
_ALL = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as given, its name or pattern of choices, and the options it leaves, as written."""

    text: str
    glob: str
    values: tuple[str, ...]

    def matches(self, choice: Choice) -> bool:
        """Return whether the rule applies to a choice."""
        return choice.name == self.glob or fnmatchcase(choice.name, self.glob)

    def narrow(self, choice: Choice, left: Sequence[Option]) -> tuple[Option, ...]:
        """Return the remaining options that the rule leaves; raise InputError for none."""
        wanted = [option for value in self.values for option in self._meant(value, choice, left)]
        kept = tuple(option for option in left if option in wanted)
        if not kept:
            raise InputError(
                f"rule {self.text!r} leaves nothing of choice {choice.name!r}: the rules before "
                f"it leave {', '.join(map(str, left))} of its options "
                f"{', '.join(map(str, choice.options))}"
            )
        return kept

    def _meant(self, value: str, choice: Choice, left: Sequence[Option]) -> Sequence[Option]:
        for written in (repr, str):
            found = [option for option in choice.options if written(option) == value]
            if found:
                return found
        named = {"min": left[:1], "max": left[-1:], _ALL: left}
        if value in named:
            return named[value]
        raise unknown(
            f"option of choice {choice.name!r} in rule {self.text!r}:", value, choice.options
        )


def parse_freeze(text: str) -> Rule:
    """Parse ``GLOB=VALUE``; raise InputError for another form."""
    glob, equals, value = (part.strip() for part in _text(text, "freeze").partition("="))
    if not (glob and equals):
        raise InputError(
            f"freeze rule {text!r} is not of the form GLOB=VALUE, such as 'stage1.*=max'"
            + ("; several options are left by an 'only' rule" if _IN.search(text) else "")
        )
    if value == _ALL:
        raise InputError(f"freeze rule {text!r} leaves every option; write 'only {glob} in *'")
    return Rule(text=text, glob=glob, values=(value,))


def parse_only(text: str) -> Rule:
    """Parse ``GLOB in V1,V2``; raise InputError for another form."""
    glob, *rest = _IN.split(_text(text, "only").strip(), maxsplit=1)
    if not (glob and rest):
        raise InputError(
            f"only rule {text!r} is not of the form GLOB in V1,V2, such as "
            "'resolution in 160,192,224'"
            + ("; a single option is left by a 'freeze' rule" if "=" in text else "")
        )
    return Rule(text=text, glob=glob, values=tuple(each.strip() for each in rest[0].split(",")))


def restricted(
    space: SearchSpace,
    freeze: Iterable[str] = (),
    only: Iterable[str] = (),
    defaults: Mapping[str, Option] | None = None,
) -> SearchSpace:
    """Return a space restricted by rules, those of ``only`` before those of ``freeze``.

    ``defaults`` are the options of choices that no rule applies to. An InputError is raised for a
    rule that is malformed, matches no choice, names an unknown option, or leaves nothing.
    """
    rules = [*map(parse_only, only), *map(parse_freeze, freeze)]
    for rule in rules:
        if not any(rule.matches(choice) for choice in space.choices):
            raise unknown(f"choice in rule {rule.text!r}:", rule.glob, space.names)
    left: dict[str, Sequence[Option]] = {}
    for choice in space.choices:
        about = [rule for rule in rules if rule.matches(choice)]
        if not about and defaults and choice.name in defaults:
            left[choice.name] = [defaults[choice.name]]
        for rule in about:
            left[choice.name] = rule.narrow(choice, left.get(choice.name, choice.options))
    return space.restrict(left) if left else space


def widened(archs: Architectures, space: SearchSpace) -> Architectures:
    """Return architectures of a part of a space as architectures of the whole space.

    Choices that only the whole space has are inactive in them.
    """
    indices = np.zeros((len(archs), len(space.choices)), np.int64)
    for column, choice in enumerate(archs.space.choices):
        if choice.name not in space.names:
            raise unknown("choice", choice.name, space.names)
        position = space.names.index(choice.name)
        own = space.choices[position]
        options = np.array([own.index(option) for option in choice.options])
        indices[:, position] = options[archs.indices[:, column]]
    return space.from_indices(indices)


def one_or_several(texts: Iterable[str] | None) -> tuple[str, ...]:
    """Return rules as a tuple; a single text is one rule, None is none."""
    return (texts,) if isinstance(texts, str) else tuple(texts or ())


def _text(given: object, what: str) -> str:
    if not isinstance(given, str):
        raise InputError(f"{what} rule {given!r} is no text; write one such as 'stage1.*=max'")
    return given
