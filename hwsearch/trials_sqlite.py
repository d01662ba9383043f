"""The store in one SQLite file.

While it is open the file is in write-ahead mode (``-wal`` and ``-shm`` lie beside it); stored
rows survive a kill. `SqliteStore.close` leaves the one file.
"""

import contextlib
import io
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from hwsearch.errors import HwsearchError, InputError
from hwsearch.files import parsed_json, plain_array
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
from hwsearch.trials_schema import (
    check_ours,
    check_readable,
    copied_store,
    create_file,
    open_store,
)

if TYPE_CHECKING:
    from hwsearch.space import Architecture

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Columns, which are the fields of `Trial` and of `Measurement`.
_TRIAL = "number, key, choices, round, origin, state, reason, forecast"
_MEASUREMENT = "key, quantity, context, purpose, value, low, high, count, cost_s, samples, details"
_IDENTITY = ("key", "quantity", "context", "purpose")


class SqliteStore(Store):
    """A store in a file, created if there is none.

    Args:
        path: The file, in an existing folder.

    Raises:
        InputError: The path cannot be read or written, is no database or another program's,
            is damaged, or was written by a newer hwsearch. The file is left unchanged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            if self.path.exists():
                check_ours(self.path)
                check_readable(self.path)
            else:
                create_file(self.path)
            self._connection = open_store(self.path)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be opened as a store: {error}") from error
        self._is_open = True

    @classmethod
    def snapshot(cls, path: str | Path) -> Self:
        """Return a copy of a store in memory; nothing is written beside it.

        It needs no write permission, includes the rows stored so far by another process, and
        migrates files of older versions in memory only.
        """
        store = cls.__new__(cls)
        store.path = Path(path)
        try:
            check_ours(store.path)
            store._connection = copied_store(store.path)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise InputError(f"{store.path} cannot be opened as a store: {error}") from error
        store._is_open = True
        return store

    def propose(
        self,
        archs: "Iterable[Architecture]",
        round: int,
        origin: str,
        forecasts: Mapping[str, Forecast] = NO_FORECASTS,
    ) -> list[Trial]:
        """Store a batch of proposals; see `Store`."""
        batch = list(archs)
        with self._transaction():
            return [self._propose(a, round, origin, forecasts.get(a.key, {})) for a in batch]

    def trials(self, state: TrialState | None = None) -> list[Trial]:
        """Return all trials, or those in one state; see `Store`."""
        return self._read(_trial, self._rows(_TRIAL, "trials", state=state))

    def trial(self, key: str) -> Trial:
        """Return the trial of one architecture; see `Store`."""
        rows = self._rows(_TRIAL, "trials", key=key)
        if not rows:
            raise not_proposed(key)
        return self._read(_trial, rows)[0]

    def add_all(self, measurements: Iterable[Measurement]) -> None:
        """Add measurements in one transaction; see `Store`."""
        batch = list(measurements)
        with self._transaction():
            for measurement in batch:
                self.trial(measurement.key)
                identity = dict(zip(_IDENTITY, measurement.identity, strict=True))
                if self._rows("key", "measurements", **identity):
                    raise already_measured(measurement)
                self._insert("measurements", _MEASUREMENT, _measurement_row(measurement))
        for m in batch:
            logger.debug("%s: %s for %s is %g", m.key, m.quantity, m.purpose, m.value)

    def find(self, key: str, quantity: str, context: str, purpose: Purpose) -> Measurement | None:
        """Return the measurement of this identity, or ``None``; see `Store`."""
        wanted = {"key": key, "quantity": quantity, "context": context, "purpose": purpose}
        rows = self._rows(_MEASUREMENT, "measurements", **wanted)
        return self._read(_measurement, rows)[0] if rows else None

    def measurements(
        self, key: str | None = None, quantity: str | None = None, purpose: Purpose | None = None
    ) -> list[Measurement]:
        """Return measurements in the order in which they were added; see `Store`."""
        wanted = {"key": key, "quantity": quantity, "purpose": purpose}
        return self._read(_measurement, self._rows(_MEASUREMENT, "measurements", **wanted))

    def close(self) -> None:
        """Checkpoint the write-ahead log and close, so that one file is left."""
        if self._is_open:
            self._is_open = False
            with contextlib.closing(self._connection):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._connection.rollback()
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise HwsearchError(
                f"{self.path} cannot be written: {error}. What was stored before is safe; "
                "remove the cause and resume"
            ) from error
        except BaseException:
            self._connection.rollback()
            raise

    def _propose(self, arch: "Architecture", round: int, origin: str, forecast: Forecast) -> Trial:
        if self._rows("key", "trials", key=arch.key):
            raise already_proposed(arch.key)
        (number,) = self._connection.execute(
            "SELECT coalesce(max(number) + 1, 0) FROM trials"
        ).fetchone()
        trial = Trial(
            number=number,
            key=arch.key,
            choices=arch.mapping,
            round=round,
            origin=origin,
            forecast=forecast,
        )
        choices = json.dumps(trial.choices, allow_nan=False)
        row = (number, trial.key, choices, trial.round, origin, str(trial.state), trial.reason)
        self._insert("trials", _TRIAL, (*row, json.dumps(trial.forecast)))
        return trial

    def _move(self, key: str, state: TrialState, reason: str | None = None) -> None:
        with self._transaction():
            trial = self.trial(key)
            if trial.state.is_finished:
                raise finished(trial)
            self._connection.execute(
                "UPDATE trials SET state = ?, reason = ? WHERE key = ?", (str(state), reason, key)
            )
        logger.debug("%s: %s%s", key, state, f", {reason}" if reason else "")

    def _rows(self, columns: str, table: str, **wanted: str | None) -> list[Any]:
        given = {column: str(value) for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "TRUE"
        query = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY number"
        try:
            return self._connection.execute(query, list(given.values())).fetchall()
        except sqlite3.ProgrammingError:
            raise  # it was closed
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise HwsearchError(
                f"{self.path} cannot be read: {error}. Bring back the disk that it lies on, or a "
                "copy of the file, and resume"
            ) from error

    def _read(self, one: Callable[[tuple[Any, ...]], T], rows: list[Any]) -> list[T]:
        try:
            return [one(row) for row in rows]
        except (ValueError, TypeError, AttributeError, MemoryError) as error:
            raise InputError(f"{self.path} is a damaged store: {error!r:.200}") from error

    def _insert(self, table: str, columns: str, row: tuple[object, ...]) -> None:
        marks = ", ".join("?" * len(row))
        self._connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", row)


def _trial(row: tuple[Any, ...]) -> Trial:
    given = dict(zip(_TRIAL.split(", "), row, strict=True))
    given |= {name: parsed_json(given[name]) for name in ("choices", "forecast")}
    return Trial(**given | {"state": TrialState(given["state"])})


def _measurement_row(m: Measurement) -> tuple[object, ...]:
    samples = None
    if m.samples is not None:
        buffer = io.BytesIO()
        np.save(buffer, m.samples, allow_pickle=False)
        samples = buffer.getvalue()
    details = json.dumps(m.details, allow_nan=False)
    return (*m.identity, m.value, m.low, m.high, m.count, m.cost_s, samples, details)


def _measurement(row: tuple[Any, ...]) -> Measurement:
    given = dict(zip(_MEASUREMENT.split(", "), row, strict=True))
    if given["samples"] is not None:
        given["samples"] = plain_array(io.BytesIO(given["samples"]))
    return Measurement(**given | {"details": parsed_json(given["details"])})
