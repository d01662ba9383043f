"""Declaration of a setting: its default, explanation and check.

The command line, ``hwsearch.toml``, ``config.toml`` and the table in docs/settings.md are derived
from the fields that `setting` declares.
"""

from collections.abc import Callable, Iterable
from dataclasses import Field, field, fields
from typing import Any, TypeVar

from hwsearch.errors import InputError, unknown

Check = Callable[[str, Any], object]
T = TypeVar("T")


def setting(
    default: T,
    explained: str,
    check: Check | None = None,
    *,
    example: object = None,
    names: Callable[[], Iterable[str]] | None = None,
) -> T:
    """Declare a setting as a field of a dataclass, explained in one sentence.

    ``check(name, value)`` raises InputError for a value that is not allowed; by default one that
    is not among ``names``, which the explanation lists, or without them no text. A default of None
    allows None, and ``example`` is shown in its place.
    """
    check = check or (one_of(names) if names else text("text"))
    metadata = {"text": explained, "check": check, "example": example, "names": names}
    return field(default=default, metadata=metadata)


def check_settings(settings: Any) -> None:
    """Check every setting of a dataclass; raise InputError for the first bad value."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if value is not None or each.default is not None:
            each.metadata["check"](each.name, value)


def explanation(declared: "Field[Any]") -> str:
    """Return the explanation of a setting, with the names it accepts."""
    told, names = str(declared.metadata["text"]), declared.metadata["names"]
    try:
        return told if names is None else f"{told} Known: {', '.join(names())}."
    except InputError:  # two packages register one name: a search says so
        return told


def text(wanted: str) -> Check:
    """Return a check that a value is text in UTF-8."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}; give {wanted}")
        _check_utf8(name, value)

    return check


def one_of(names: Callable[[], Iterable[str]]) -> Check:
    """Return a check that a value is one of several names."""

    def check(name: str, value: object) -> None:
        if value not in (known := list(names())):
            raise unknown(name, value, known)

    return check


def texts(name: str, value: object) -> None:
    """Check that a value is a tuple of texts."""
    if not isinstance(value, tuple) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{name} is {value!r}; give a list of texts")
    for each in value:
        _check_utf8(name, each)


def whole(least: int) -> Check:
    """Return a check that a value is a whole number."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number from {least} up")

    return check


def _check_utf8(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{name} is {value!r}, which has bytes that are no UTF-8 text; rename it, or give a "
            "link to it that has another name"
        ) from None
