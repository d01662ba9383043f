"""The store of the trials and measurements of a run: one SQLite file, or memory.

While it is open the file is in write-ahead mode (``-wal`` and ``-shm`` lie beside it); stored
rows survive a kill. `Store.close` leaves the one file.
"""

import contextlib
import io
import json
import logging
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from hwsearch.errors import HwsearchError, InputError
from hwsearch.files import parsed_json, plain_array
from hwsearch.trials import Forecast, Measurement, Purpose, Trial, TrialState
from hwsearch.trials_schema import MEMORY, copy_store, open_store

if TYPE_CHECKING:
    from hwsearch.space import Architecture

logger = logging.getLogger(__name__)
Record = TypeVar("Record", Trial, Measurement)

# Tables, whose columns are the fields of the records.
_TABLES: Mapping[type, str] = {Trial: "trials", Measurement: "measurements"}


class Store:
    """All trials and measurements of one run, in chronological order; it decides nothing.

    - A call that returns has stored everything that it was given; one that raises, nothing.
    - No two trials share a key, and no two measurements an identity.
    - A finished trial (done, failed) never changes; a measurement never does.
    - Measurements may be added to a finished trial, and only to an architecture that was
      proposed: a proposal is stored before it is evaluated.
    - Returned objects are the caller's: changing them changes nothing stored.
    - One thread of one process writes.

    An unknown key raises `InputError`, except in `find` and `measurements`.

    Args:
        path: The file, created if there is none, in an existing folder; by default in memory.

    Raises:
        InputError: The path cannot be read or written, is no database or another program's,
            is damaged, or was written by a newer hwsearch. The file is left unchanged.
    """

    def __init__(self, path: str | Path = MEMORY) -> None:
        self.path = Path(path)
        self._connection = open_store(self.path)
        self._close = weakref.finalize(self, _checkpoint_and_close, self._connection)

    @classmethod
    def snapshot(cls, path: str | Path) -> Self:
        """Return a copy of a store in memory; nothing is written beside it.

        It needs no write permission, includes the rows stored so far by another process, and
        migrates files of older versions in memory only.
        """
        store = cls()
        store.path = Path(path)
        copy_store(store.path, store._connection)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Checkpoint the write-ahead log and close, so that one file is left; may be repeated."""
        self._close()

    def propose(
        self,
        archs: "Iterable[Architecture]",
        round: int,
        origin: str,
        forecasts: Mapping[str, Forecast] | None = None,
    ) -> list[Trial]:
        """Store a batch of proposals in the order given, all or none.

        ``forecasts`` maps keys to predictions; those of other keys are ignored.

        InputError is raised where a key was proposed before or is twice in the batch, or a
        forecast holds a number that is not finite or a negative deviation.
        """
        trials: list[Trial] = []
        with self._transaction():
            (number,) = self._connection.execute("SELECT count(*) FROM trials").fetchone()
            for arch in archs:
                if self._select(Trial, key=arch.key):
                    raise InputError(
                        f"architecture {arch.key} was proposed before; a store holds each one once"
                    )
                trial = Trial(
                    number=number + len(trials),
                    key=arch.key,
                    choices=arch.mapping,
                    round=round,
                    origin=origin,
                    forecast=(forecasts or {}).get(arch.key, {}),
                )
                self._insert(trial)
                trials.append(trial)
        return trials

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

    def trials(self, state: TrialState | None = None) -> list[Trial]:
        """Return all trials, or those in one state, in the order of proposals."""
        return self._select(Trial, state=state)

    def trial(self, key: str) -> Trial:
        """Return the trial of one architecture."""
        found = self._select(Trial, key=key)
        if not found:
            raise InputError(f"no trial has the key {key!r}; propose the architecture first")
        return found[0]

    def add(self, measurement: Measurement) -> None:
        """Add one measurement, as `add_all` does."""
        self.add_all([measurement])

    def add_all(self, measurements: Iterable[Measurement]) -> None:
        """Add measurements, in order, all or none; raise InputError for a duplicate identity."""
        batch = list(measurements)
        with self._transaction():
            for m in batch:
                self.trial(m.key)
                if self.find(*m.identity):
                    raise InputError(
                        f"{m.quantity} of {m.key} was measured before for the purpose "
                        f"{m.purpose!r} in the context {m.context!r}; look it up with find() "
                        "instead of measuring it again"
                    )
                self._insert(m)
        for m in batch:
            logger.debug("%s: %s for %s is %g", m.key, m.quantity, m.purpose, m.value)

    def find(self, key: str, quantity: str, context: str, purpose: Purpose) -> Measurement | None:
        """Return the measurement of this identity, or ``None``."""
        wanted = {"key": key, "quantity": quantity, "context": context, "purpose": purpose}
        return next(iter(self._select(Measurement, **wanted)), None)

    def measurements(
        self,
        key: str | None = None,
        quantity: str | None = None,
        purpose: Purpose | None = None,
        *,
        after: int = 0,
        samples: bool = True,
    ) -> list[Measurement]:
        """Return all measurements, or those that match, in the order in which they were added.

        The first ``after`` of all are left out; without ``samples`` their raw numbers are.
        """
        without = () if samples else ("samples",)
        wanted = {"key": key, "quantity": quantity, "purpose": purpose}
        return self._select(Measurement, after, without, **wanted)

    @property
    def n_measurements(self) -> int:
        """Number of measurements."""
        query = f"SELECT coalesce(max(number), 0) FROM {_TABLES[Measurement]}"
        ((number,),) = self._rows(query)
        return int(number)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._connection.rollback()
            ours = isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError)
            if ours or not isinstance(error, sqlite3.DatabaseError):
                raise
            raise HwsearchError(
                f"{self.path} cannot be written: {error}. What was stored before is safe; "
                "remove the cause and resume"
            ) from error

    def _move(self, key: str, state: TrialState, reason: str | None = None) -> None:
        with self._transaction():
            trial = self.trial(key)
            if trial.state.is_finished:
                raise InputError(
                    f"trial {trial.number} ({key}) is {trial.state}: it never changes"
                )
            self._connection.execute(
                "UPDATE trials SET state = ?, reason = ? WHERE key = ?", (state, reason, key)
            )
        logger.debug("%s: %s%s", key, state, f", {reason}" if reason else "")

    def _insert(self, record: Trial | Measurement) -> None:
        names = [field.name for field in fields(record)]
        self._connection.execute(
            f"INSERT INTO {_TABLES[type(record)]} ({', '.join(names)}) "
            f"VALUES ({', '.join('?' * len(names))})",
            [_stored(getattr(record, name)) for name in names],
        )

    def _select(
        self,
        kind: type[Record],
        after: int = 0,
        without: Collection[str] = (),
        /,
        **wanted: str | None,
    ) -> list[Record]:
        """Return the records whose columns have the wanted values, in the order of storing.

        They are those after the n-th measurement, the columns ``without`` left out.
        """
        names = [field.name for field in fields(kind) if field.name not in without]
        given = {column: value for column, value in wanted.items() if value is not None}
        conditions = [f"{column} = ?" for column in given]
        if after:
            conditions.append(f"number > {after:d}")
        where = " AND ".join(conditions) or "TRUE"
        query = f"SELECT {', '.join(names)} FROM {_TABLES[kind]} WHERE {where} ORDER BY number"
        rows = self._rows(query, *given.values())
        try:
            return [kind(**_loaded(dict(zip(names, row, strict=True)))) for row in rows]
        except (ValueError, TypeError, AttributeError, MemoryError) as error:
            raise InputError(f"{self.path} is a damaged store: {error!r:.200}") from error

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; raise HwsearchError if the file cannot be read."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.ProgrammingError:
            raise  # it was closed
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise HwsearchError(
                f"{self.path} cannot be read: {error}. Bring back the disk that it lies on, or a "
                "copy of the file, and resume"
            ) from error


def _checkpoint_and_close(connection: sqlite3.Connection) -> None:
    with contextlib.closing(connection):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _stored(value: object) -> object:
    """Return a field of a record as SQLite stores it."""
    if isinstance(value, dict):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        return buffer.getvalue()
    return value


_LOADERS: Mapping[str, Callable[[Any], Any]] = {
    "choices": parsed_json,
    "forecast": parsed_json,
    "details": parsed_json,
    "state": TrialState,
    "samples": lambda stored: plain_array(io.BytesIO(stored)),
}


def _loaded(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record from its columns."""
    given = (name for name in _LOADERS if row.get(name) is not None)
    return row | {name: _LOADERS[name](row[name]) for name in given}
