"""Running one contract check, and the report of the failed ones."""

import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from hwsearch.errors import ContractError

MAX_PROBLEMS = 3
Subject = TypeVar("Subject")


def first_problems(problems: Callable[[Subject], Iterator[str]], subject: Subject) -> list[str]:
    """Return the first few problems that a check finds; let its SkipTest through."""
    found: list[str] = []
    try:
        found.extend(islice(problems(subject), MAX_PROBLEMS))
    except unittest.SkipTest:
        raise
    except ContractError as error:
        found.append(str(error))
    except Exception as error:  # noqa: BLE001 - what is checked is a stranger's code
        found.append(f"{type(error).__name__}: {error}")
    return found


def owed_by(problems: Callable[[Subject], Iterator[str]]) -> str:
    """Return the first line of a check's docstring: its requirement."""
    return (problems.__doc__ or "").strip().splitlines()[0]


def run_checks(
    what: str,
    name: str,
    first: Sequence[Callable[[Subject], Iterator[str]]],
    then: Sequence[Callable[[Subject], Iterator[str]]],
    subject: Subject,
) -> dict[str, str]:
    """Run checks of a ``what`` (such as ``supernet``); the others need those in ``first`` to pass.

    Returns:
        Name of each check that does not apply -> the reason.

    Raises:
        ContractError: Checks failed; the text names each with its findings and what to do.
    """
    owed = {problems.__name__: owed_by(problems) for problems in (*first, *then)}
    for problems in first:
        if found := first_problems(problems, subject):
            only = {problems.__name__: found}
            note = "\nThe checks after it were not run: they need this one to pass."
            raise ContractError(report(what, name, owed, only) + note, only)
    failed: dict[str, list[str]] = {}
    skipped: dict[str, str] = {}
    for problems in then:
        try:
            if found := first_problems(problems, subject):
                failed[problems.__name__] = found
        except unittest.SkipTest as reason:
            skipped[problems.__name__] = str(reason)
    if failed:
        raise ContractError(report(what, name, owed, failed), failed)
    return skipped


def report(
    what: str, name: str, owed: Mapping[str, str], failed: Mapping[str, Sequence[str]]
) -> str:
    """Return a report of the failed checks of a ``what`` (such as ``supernet``).

    ``owed`` maps every check to its requirement, ``failed`` each failed one to its problems.
    """
    count = f"{len(failed)} of {len(owed)} checks" if len(failed) > 1 else "a check"
    lines = [f"{what} {name!r} does not do what a {what} owes; {count} failed:"]
    for check, problems in failed.items():
        lines.append(f"{check}: {owed[check]}")
        lines += [f"  - {problem}" for problem in problems]
    return "\n".join(lines)
