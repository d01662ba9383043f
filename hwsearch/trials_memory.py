"""A store of trials and measurements in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from hwsearch.trials import (
    NO_FORECASTS,
    Forecast,
    Measurement,
    Purpose,
    Store,
    Trial,
    TrialState,
    already_measured,
    already_proposed,
    finished,
    not_proposed,
)

if TYPE_CHECKING:
    from hwsearch.space import Architecture


class MemoryStore(Store):
    """A store in memory; for tests and `hwsearch.optimize`."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}
        self._measurements: dict[tuple[str, str, str, str], Measurement] = {}

    def propose(
        self,
        archs: "Iterable[Architecture]",
        round: int,
        origin: str,
        forecasts: Mapping[str, Forecast] = NO_FORECASTS,
    ) -> list[Trial]:
        """Store a batch of proposals; see `Store`."""
        trials = dict(self._trials)
        for arch in archs:
            if arch.key in trials:
                raise already_proposed(arch.key)
            trials[arch.key] = Trial(
                number=len(trials),
                key=arch.key,
                choices=arch.mapping,
                round=round,
                origin=origin,
                forecast=forecasts.get(arch.key, {}),
            )
        new = list(trials.values())[len(self._trials) :]
        self._trials = trials
        return [replace(trial) for trial in new]

    def trials(self, state: TrialState | None = None) -> list[Trial]:
        """Return all trials, or those in one state; see `Store`."""
        return [replace(t) for t in self._trials.values() if state in (None, t.state)]

    def trial(self, key: str) -> Trial:
        """Return the trial of one architecture; see `Store`."""
        if key not in self._trials:
            raise not_proposed(key)
        return replace(self._trials[key])

    def add_all(self, measurements: Iterable[Measurement]) -> None:
        """Add measurements, all or none; see `Store`."""
        new: dict[tuple[str, str, str, str], Measurement] = {}
        for measurement in measurements:
            if measurement.key not in self._trials:
                raise not_proposed(measurement.key)
            if measurement.identity in self._measurements or measurement.identity in new:
                raise already_measured(measurement)
            new[measurement.identity] = replace(measurement)
        self._measurements.update(new)

    def find(self, key: str, quantity: str, context: str, purpose: Purpose) -> Measurement | None:
        """Return the measurement of this identity, or ``None``; see `Store`."""
        found = self._measurements.get((key, quantity, context, purpose))
        return None if found is None else replace(found)

    def measurements(
        self, key: str | None = None, quantity: str | None = None, purpose: Purpose | None = None
    ) -> list[Measurement]:
        """Return measurements in the order in which they were added; see `Store`."""
        return [
            replace(m)
            for m in self._measurements.values()
            if key in (None, m.key)
            and quantity in (None, m.quantity)
            and purpose in (None, m.purpose)
        ]

    def close(self) -> None:
        """Do nothing: memory holds no file."""

    def _move(self, key: str, state: TrialState, reason: str | None = None) -> None:
        trial = self.trial(key)
        if trial.state.is_finished:
            raise finished(trial)
        self._trials[key] = replace(trial, state=state, reason=reason)
