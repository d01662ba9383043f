"""Stopping rules: number of evaluations, wall time, expected hypervolume gain."""

import math
import numbers
from dataclasses import dataclass
from typing import Final

from hwsearch.errors import InputError
from hwsearch.optimizer.history import N_INITIAL
from hwsearch.optimizer.optimizer import Optimizer, check_count

LOOKAHEAD: Final = 50  # further evaluations whose gain is predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Stopping rules of a search, which ends by the first that holds; None for no limit.

    Attributes:
        budget: Number of evaluations, failed ones included.
        minutes: Wall time of the search; a started round is finished.
        stop_gain: Percent; see `hwsearch.optimizer.optimize.optimize`.
    """

    budget: int
    minutes: float | None = None
    stop_gain: float | None = None

    def __post_init__(self) -> None:
        check_count("budget", self.budget, 1)
        check_positive("minutes", self.minutes)
        check_positive("stop_gain", self.stop_gain)

    def reason(self, optimizer: Optimizer, seconds: float) -> str:
        """Return the reason to end before the budget is spent, between two rounds; else empty."""
        done = len(optimizer.history.told)
        spent = f"the search ended after {done} of {self.budget} evaluations"
        if self.minutes is not None and seconds >= 60.0 * self.minutes:
            return f"{spent}: its {self.minutes:g} minutes are over"
        if self.stop_gain is None or done < N_INITIAL:
            return ""
        gain, volume = optimizer.expected_gain(LOOKAHEAD), optimizer.hypervolume()
        share = math.inf if gain is None or volume <= 0 else 100.0 * gain / volume
        if share >= self.stop_gain:
            return ""
        return (
            f"{spent}: the next {LOOKAHEAD} are expected to add {share:.2g}% of the hypervolume, "
            f"less than {self.stop_gain:g}%"
        )


def check_positive(what: str, given: object) -> None:
    """Raise InputError for anything but None and a positive, finite number."""
    if given is None:
        return
    number = isinstance(given, numbers.Real) and not isinstance(given, bool)
    if not number or not math.isfinite(float(given)) or float(given) <= 0:  # type: ignore[arg-type]
        raise InputError(f"{what} {given!r} is not usable; give a positive number, or nothing")
