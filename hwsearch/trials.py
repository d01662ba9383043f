"""Trials and measurements: the records, and the contract of a store.

A store holds rows and states; it decides nothing. It is implemented by `hwsearch.trials_memory`
and `hwsearch.trials_sqlite`.
"""

import json
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError, unknown

if TYPE_CHECKING:
    from hwsearch.space import Architecture, Option

Purpose = Literal["search", "confirm", "report"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
FORMER_PURPOSES = ("race",)  # in stores of versions up to 0.1; read, never written by a search
Forecast = Mapping[str, tuple[float, float]]
"""Name of an objective -> (mean, standard deviation), in its unit."""
NO_FORECASTS: Mapping[str, Forecast] = MappingProxyType({})


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
        object.__setattr__(self, "forecast", _plain_forecast(self.key, self.forecast))
        object.__setattr__(self, "round", int(self.round))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """One value of one quantity of one architecture, with how it was obtained.

    Args:
        key: The architecture's key.
        quantity: Its name, such as ``top1`` or ``latency``.
        context: Everything that decides the value: device and settings, or data and images.
        purpose: ``search``, ``confirm`` or ``report``.
        value: In the quantity's unit; finite.
        low: Lower end of the 95% interval, ``None`` where there is none; finite.
        high: Upper end, likewise; not below ``low``.
        count: Number of images or runs, at least 1.
        cost_s: Seconds that it took, at least 0.
        samples: Raw times or outcomes per image, any shape, of plain numbers; kept as a
            read-only copy.
        details: Anything else, as plain JSON values without NaN.

    Raises:
        InputError: A value breaks one of these rules.
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
            if name in ("value", "cost_s") or getattr(self, name) is not None:
                self._set(name, self._finite(name))
        if self.low is not None and self.high is not None and self.low > self.high:
            raise self._refused(f"its interval's low {self.low} is above its high {self.high}")
        self._set("count", self._whole_count())
        if self.cost_s < 0:
            raise self._refused(f"cost_s is {self.cost_s}; seconds from 0 are needed")
        self._set("samples", self._plain_samples())
        self._set("details", self._plain_details())

    @property
    def identity(self) -> tuple[str, str, str, str]:
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

    def _finite(self, name: str) -> float:
        given = getattr(self, name)
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self._refused(
                f"{name} is {given!r}, not a finite number; what was not measured is left out"
            )
        return number + 0.0  # -0.0 becomes 0.0: SQLite does not keep that sign

    def _whole_count(self) -> int:
        try:
            count = operator.index(self.count)
        except TypeError:
            count = 0
        if count < 1:
            raise self._refused(f"count is {self.count!r}; a whole number from 1 is needed")
        return count

    def _plain_samples(self) -> NDArray[Any] | None:
        if self.samples is None:
            return None
        copy = np.array(self.samples)
        if copy.dtype.hasobject:
            raise self._refused("samples hold Python objects; an array of numbers is needed")
        copy.setflags(write=False)
        return copy

    def _plain_details(self) -> dict[str, Any]:
        try:
            plain: dict[str, Any] = json.loads(json.dumps(self.details, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise self._refused(f"details are not plain JSON values: {error}") from error
        return plain


class Store(ABC):
    """All trials and measurements of one run, in chronological order.

    - A call that returns has stored everything that it was given; one that raises, nothing.
    - No two trials share a key, and no two measurements an identity.
    - A finished trial (done, failed) never changes; a measurement never does.
    - Measurements may be added to a finished trial, and only to an architecture that was
      proposed: a proposal is stored before it is evaluated.
    - Returned objects are the caller's: changing them changes nothing stored.
    - One thread of one process writes.

    An unknown key raises `InputError`, except in `find` and `measurements`.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @abstractmethod
    def propose(
        self,
        archs: "Iterable[Architecture]",
        round: int,
        origin: str,
        forecasts: Mapping[str, Forecast] = NO_FORECASTS,
    ) -> list[Trial]:
        """Store a batch of proposals in the order given, all or none.

        ``forecasts`` maps keys to predictions; those of other keys are ignored.

        Raises:
            InputError: A key was proposed before, or is twice in the batch, or a forecast holds a
                number that is not finite or a negative deviation.
        """

    def start(self, key: str) -> None:
        """Mark a trial as running, again after an interruption; raise InputError if finished."""
        self._move(key, TrialState.RUNNING)

    def finish(self, key: str) -> None:
        """Mark an unfinished trial as done; raise InputError if it is finished."""
        self._move(key, TrialState.DONE)

    def fail(self, key: str, reason: str) -> None:
        """Mark an unfinished trial as failed; raise InputError if finished or without a reason."""
        if not reason.strip():
            raise InputError(f"trial {key} cannot fail without a reason; say what went wrong")
        self._move(key, TrialState.FAILED, reason)

    @abstractmethod
    def _move(self, key: str, state: TrialState, reason: str | None = None) -> None:
        """Change the state of an unfinished trial; raise InputError if it is finished."""

    @abstractmethod
    def trials(self, state: TrialState | None = None) -> list[Trial]:
        """Return all trials, or those in one state, in the order of proposals."""

    @abstractmethod
    def trial(self, key: str) -> Trial:
        """Return the trial of one architecture."""

    def add(self, measurement: Measurement) -> None:
        """Add one measurement, as `add_all` does."""
        self.add_all([measurement])

    @abstractmethod
    def add_all(self, measurements: Iterable[Measurement]) -> None:
        """Add measurements, in order, all or none; raise InputError for a duplicate identity."""

    @abstractmethod
    def find(self, key: str, quantity: str, context: str, purpose: Purpose) -> Measurement | None:
        """Return the measurement of this identity, or ``None``."""

    @abstractmethod
    def measurements(
        self, key: str | None = None, quantity: str | None = None, purpose: Purpose | None = None
    ) -> list[Measurement]:
        """Return all measurements, or those that match, in the order in which they were added."""

    @abstractmethod
    def close(self) -> None:
        """Release the store's resources; may be repeated."""


def already_proposed(key: str) -> InputError:
    """Return the error for a key that a store holds already."""
    return InputError(f"architecture {key} was proposed before; a store holds each one once")


def not_proposed(key: str) -> InputError:
    """Return the error for a key that a store does not hold."""
    return InputError(f"no trial has the key {key!r}; propose the architecture first")


def already_measured(measurement: Measurement) -> InputError:
    """Return the error for an identity that a store holds already."""
    key, quantity, context, purpose = measurement.identity
    return InputError(
        f"{quantity} of {key} was measured before for the purpose {purpose!r} in the context "
        f"{context!r}; look it up with find() instead of measuring it again"
    )


def finished(trial: Trial) -> InputError:
    """Return the error for a change to a finished trial."""
    return InputError(f"trial {trial.number} ({trial.key}) is {trial.state}: it never changes")


def _plain_forecast(key: str, given: Forecast) -> dict[str, tuple[float, float]]:
    plain = {name: (float(mean), float(deviation)) for name, (mean, deviation) in given.items()}
    for name, (mean, deviation) in plain.items():
        if not (math.isfinite(mean) and math.isfinite(deviation) and deviation >= 0):
            raise InputError(
                f"forecast of {name} of {key} refused: mean {mean} and deviation {deviation}; "
                "finite numbers are needed, and a deviation from 0"
            )
    return plain


def _comparable(m: Measurement) -> tuple[object, ...]:
    samples = m.samples
    raw = None if samples is None else (samples.dtype, samples.shape, samples.tobytes())
    return (*m.identity, m.value, m.low, m.high, m.count, m.cost_s, raw, m.details)
