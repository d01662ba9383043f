"""Trials and measurements: the records that a store holds."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError, unknown

if TYPE_CHECKING:
    from hwsearch.space import Option

Purpose = Literal["search", "bridge", "confirm", "report"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
FORMER_PURPOSES = ("race",)  # in stores of versions up to 0.1; read, never written by a search
Forecast = Mapping[str, tuple[float, float]]
"""Name of an objective -> (mean, standard deviation), in its unit."""


class TrialState(StrEnum):
    """State of a trial; `DONE` and `FAILED` are final."""

    PROPOSED = "proposed"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_finished(self) -> bool:
        """Return whether the state is final."""
        return self in (TrialState.DONE, TrialState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One proposed architecture; ``number`` counts proposals from 0 without gaps.

    ``origin`` says how it was proposed, such as ``sample`` or ``search``; ``forecast`` maps names
    to the mean and standard deviation predicted then; ``reason`` is the cause of a failure.
    """

    number: int
    key: str
    choices: "dict[str, Option]"
    round: int
    origin: str
    state: TrialState = TrialState.PROPOSED
    reason: str | None = None
    forecast: Forecast = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", dict(self.choices))
        object.__setattr__(self, "round", int(self.round))
        given = self.forecast.items()
        plain = {name: (float(mean), float(deviation)) for name, (mean, deviation) in given}
        for name, (mean, deviation) in plain.items():
            if not (math.isfinite(mean) and math.isfinite(deviation) and deviation >= 0):
                raise InputError(
                    f"forecast of {name} of {self.key} refused: mean {mean} and deviation "
                    f"{deviation}; finite numbers are needed, and a deviation from 0"
                )
        object.__setattr__(self, "forecast", plain)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """One value of one quantity of one architecture, with how it was obtained.

    ``context`` is everything that decides the value: device and settings, or data and images.
    ``value`` and the ends of its 95% interval, where there is one, are finite and in the
    quantity's unit; ``count`` is the number of images or runs, at least 1. ``samples`` are raw
    times or outcomes per image, numbers in any shape, kept as a read-only copy; ``details`` is
    anything else, as plain JSON values without NaN. InputError is raised for other values.
    """

    key: str
    quantity: str
    context: str
    purpose: Purpose
    value: float
    low: float | None = None
    high: float | None = None
    count: int
    cost_s: float
    samples: NDArray[Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("key", "quantity", "context"):
            if not getattr(self, name):
                raise InputError(f"a measurement of {self.quantity!r} needs a {name}")
        if self.purpose not in (*PURPOSES, *FORMER_PURPOSES):
            raise unknown(f"purpose of a measurement of {self.quantity}", self.purpose, PURPOSES)
        for name in ("value", "low", "high", "cost_s"):
            given = getattr(self, name)
            if given is None and name in ("low", "high"):
                continue
            try:
                number = float(given)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number):
                raise self._refused(
                    f"{name} is {given!r}, not a finite number; what was not measured is left out"
                )
            self._set(name, number + 0.0)  # -0.0 becomes 0.0: SQLite does not keep that sign
        if self.low is not None and self.high is not None and self.low > self.high:
            raise self._refused(f"its interval's low {self.low} is above its high {self.high}")
        count: object = self.count
        if not isinstance(count, int | np.integer) or count < 1:
            raise self._refused(f"count is {count!r}; a whole number from 1 is needed")
        self._set("count", int(count))
        if self.cost_s < 0:
            raise self._refused(f"cost_s is {self.cost_s}; seconds from 0 are needed")
        if self.samples is not None:
            samples = np.array(self.samples)
            if samples.dtype.hasobject:
                raise self._refused("samples hold Python objects; an array of numbers is needed")
            samples.setflags(write=False)
            self._set("samples", samples)
        try:
            self._set("details", json.loads(json.dumps(self.details, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise self._refused(f"details are not plain JSON values: {error}") from error

    @property
    def identity(self) -> tuple[str, str, str, Purpose]:
        """Return ``(key, quantity, context, purpose)``, unique in a store."""
        return (self.key, self.quantity, self.context, self.purpose)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Measurement):
            return NotImplemented
        return _comparable(self) == _comparable(other)

    __hash__ = None  # type: ignore[assignment]  # details are mutable

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _refused(self, why: str) -> InputError:
        return InputError(f"measurement of {self.quantity} of {self.key} refused: {why}")


def _comparable(m: Measurement) -> tuple[object, ...]:
    samples = m.samples
    raw = None if samples is None else (samples.dtype, samples.shape, samples.tobytes())
    return (*m.identity, m.value, m.low, m.high, m.count, m.cost_s, raw, m.details)
