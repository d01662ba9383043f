"""Exceptions of hwsearch; ``exit_code`` is that of the command line.

A message says what was wrong, the value given, what is allowed, and the next step.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence


class HwsearchError(Exception):
    """Base class of the package's errors; the text is meant for the user."""

    exit_code = 1


class InputError(HwsearchError, ValueError):
    """The caller can correct an argument, file or option; nothing has been changed."""

    exit_code = 2


class DataError(InputError):
    """Samples cannot be read, or do not fit an architecture; the run can be resumed."""


class InfeasibleError(HwsearchError):
    """No architecture satisfies the constraints; the text names the closest."""

    exit_code = 3


class EvaluationError(HwsearchError):
    """One trial failed; the text is its recorded reason, and the search goes on."""


class DeviceError(EvaluationError):
    """The device's runtime refused, crashed or hung on one model."""


class DeviceLostError(HwsearchError):
    """The device no longer runs any model that it ran before; the run can be resumed."""


class VerificationError(HwsearchError):
    """An exported artifact fails its verification."""


class ContractError(HwsearchError, AssertionError):
    """A family or a tactic breaks its contract; ``failed`` maps checks to the problems found."""

    def __init__(self, message: str, failed: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(message)
        self.failed = dict(failed or {})


def unknown(
    what: str, given: object, allowed: Iterable[object], next_step: str = ""
) -> InputError:
    """Return the error for an unknown ``what`` ("supernet"), with the nearest allowed name."""
    names = [str(name) for name in allowed]
    nearest = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    step = f" {next_step}" if next_step else ""
    return InputError(
        f"unknown {what} {given!r}; known: {', '.join(names) or 'none'}.{hint}{step}"
    )
