"""When a search ends: by evaluations, by minutes, or when little more is expected."""

import math
import numbers
from dataclasses import dataclass
from typing import Final

from hwsearch.errors import InputError
from hwsearch.optimizer.history import N_FIRST
from hwsearch.optimizer.optimizer import Optimizer, check_count

AHEAD: Final = 50  # evaluations whose gain decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When a search ends, whichever comes first.

    Attributes:
        budget: Evaluations in all, failed ones included.
        minutes: Wall time of the search; a round that is under way is finished. None for as long
            as it takes.
        stop_gain: Percent; the search ends when its next 50 evaluations are expected to add less
            than this share of the hypervolume. None to go on.

    Raises:
        InputError: A number that is not positive.
    """

    budget: int
    minutes: float | None = None
    stop_gain: float | None = None

    def __post_init__(self) -> None:
        check_count("budget", self.budget, 1)
        check_positive("minutes", self.minutes)
        check_positive("stop_gain", self.stop_gain)

    def reason(self, optimizer: Optimizer, seconds: float) -> str:
        """Say why a search ends before its budget is spent; empty where it goes on.

        Args:
            optimizer: Between two rounds.
            seconds: What the search has taken so far.
        """
        done = len(optimizer.history.told)
        spent = f"the search ended after {done} of {self.budget} evaluations"
        if self.minutes is not None and seconds >= 60.0 * self.minutes:
            return f"{spent}: its {self.minutes:g} minutes are over"
        share = self._share(optimizer) if done >= N_FIRST else None
        if self.stop_gain is None or share is None or share >= self.stop_gain:
            return ""
        return (
            f"{spent}: the next {AHEAD} are expected to add {share:.2g}% of the hypervolume, "
            f"less than {self.stop_gain:g}%"
        )

    def _share(self, optimizer: Optimizer) -> float | None:
        """Percent of the hypervolume that the next evaluations are expected to add."""
        if self.stop_gain is None:
            return None
        gain, volume = optimizer.expected_gain(AHEAD), optimizer.hypervolume()
        return None if gain is None or volume <= 0 else 100.0 * gain / volume


def check_positive(what: str, given: object) -> None:
    """Raise InputError for anything but None and a positive, finite number."""
    if given is None:
        return
    number = isinstance(given, numbers.Real) and not isinstance(given, bool)
    if not number or not math.isfinite(float(given)) or float(given) <= 0:  # type: ignore[arg-type]
        raise InputError(f"{what} {given!r} is not usable; give a positive number, or nothing")
