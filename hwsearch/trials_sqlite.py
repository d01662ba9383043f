"""The store in one SQLite file, written as things happen.

While it is open the file is in write-ahead mode (``-wal`` and ``-shm`` lie beside it); what was
acknowledged survives a kill. `SqliteStore.close` leaves the one file.
"""

import contextlib
import io
import json
import logging
import os
import shutil
import sqlite3
import tempfile
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
    Trial,
    TrialState,
    already_measured,
    already_proposed,
    check_reason,
    finished,
    not_proposed,
)

if TYPE_CHECKING:
    from hwsearch.space import Architecture

logger = logging.getLogger(__name__)
T = TypeVar("T")
APPLICATION_ID = int.from_bytes(b"hwsr", "big")

_TRIAL = "number, key, choices, round, origin, state, reason, forecast"
_MEASUREMENT = "key, quantity, context, purpose, value, low, high, count, cost_s, samples, details"


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE trials (
            number INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            choices TEXT NOT NULL,
            round INTEGER NOT NULL,
            origin TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('proposed', 'running', 'done', 'failed')),
            reason TEXT CHECK ((reason IS NOT NULL) = (state = 'failed'))
        )"""
    )
    connection.execute(
        """CREATE TABLE measurements (
            number INTEGER PRIMARY KEY,
            key TEXT NOT NULL REFERENCES trials (key),
            quantity TEXT NOT NULL,
            context TEXT NOT NULL,
            purpose TEXT NOT NULL,
            value REAL NOT NULL,
            low REAL,
            high REAL,
            count INTEGER NOT NULL,
            cost_s REAL NOT NULL,
            samples BLOB,
            details TEXT NOT NULL,
            UNIQUE (key, quantity, context, purpose)
        )"""
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _add_forecasts(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE trials ADD COLUMN forecast TEXT NOT NULL DEFAULT '{}'")


# The n-th brings a file from schema version n - 1 to n. Never change one that was released:
# append the next, and keep a file of the version before under tests/data.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create, _add_forecasts)


class SqliteStore:
    """A `Store` in a file, created when there is none.

    Args:
        path: The file, in a folder that exists.

    Raises:
        InputError: The path cannot be read or written, is no database or another program's,
            is damaged, or was written by a newer hwsearch. The file is left as it was.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            if self.path.exists():
                _check_ours(self.path)
                _check_readable(self.path)
            else:
                _create_file(self.path)
            self._connection = _open(self.path)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be opened as a store: {error}") from error
        self._is_open = True

    @classmethod
    def snapshot(cls, path: str | Path) -> Self:
        """Return a copy of a store in memory; nothing is written beside it.

        It needs no permission to write, shows what was acknowledged so far of a store that another
        process writes, and brings files of older versions up to date in memory alone.

        Raises:
            InputError: There is no such file, or it cannot be read as a store; see `SqliteStore`.
        """
        store = cls.__new__(cls)
        store.path = Path(path)
        try:
            _check_ours(store.path)
            store._connection = _copied(store.path)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise InputError(f"{store.path} cannot be opened as a store: {error}") from error
        store._is_open = True
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

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

    def start(self, key: str) -> None:
        """Mark a trial as running; see `Store`."""
        self._move(key, TrialState.RUNNING)

    def finish(self, key: str) -> None:
        """Mark an unfinished trial as done; see `Store`."""
        self._move(key, TrialState.DONE)

    def fail(self, key: str, reason: str) -> None:
        """Mark an unfinished trial as failed; see `Store`."""
        self._move(key, TrialState.FAILED, check_reason(key, reason))

    def trials(self, state: TrialState | None = None) -> list[Trial]:
        """All trials, or those in one state; see `Store`."""
        where, values = _where(state=state)
        return self._read(_trial, self._rows(_TRIAL, "trials", where, values))

    def trial(self, key: str) -> Trial:
        """The trial of one architecture; see `Store`."""
        where, values = _where(key=key)
        rows = self._rows(_TRIAL, "trials", where, values)
        if not rows:
            raise not_proposed(key)
        return self._read(_trial, rows)[0]

    def add(self, measurement: Measurement) -> None:
        """Append one measurement; see `Store`."""
        self.add_all([measurement])

    def add_all(self, measurements: Iterable[Measurement]) -> None:
        """Append measurements in one transaction; see `Store`."""
        batch = list(measurements)
        with self._transaction():
            for measurement in batch:
                self.trial(measurement.key)
                if self._has(measurement):
                    raise already_measured(measurement)
                self._insert("measurements", _MEASUREMENT, _measurement_row(measurement))
        for m in batch:
            logger.debug("%s: %s for %s is %g", m.key, m.quantity, m.purpose, m.value)

    def find(self, key: str, quantity: str, context: str, purpose: Purpose) -> Measurement | None:
        """The one measurement of this identity, or ``None``; see `Store`."""
        where, values = _where(key=key, quantity=quantity, context=context, purpose=purpose)
        rows = self._rows(_MEASUREMENT, "measurements", where, values)
        return self._read(_measurement, rows)[0] if rows else None

    def measurements(
        self, key: str | None = None, quantity: str | None = None, purpose: Purpose | None = None
    ) -> list[Measurement]:
        """Measurements in the order of their adding; see `Store`."""
        where, values = _where(key=key, quantity=quantity, purpose=purpose)
        rows = self._rows(_MEASUREMENT, "measurements", where, values)
        return self._read(_measurement, rows)

    def close(self) -> None:
        """Bring the write-ahead log into the file and close it, so that one file is left."""
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
        where, values = _where(key=arch.key)
        if self._rows("key", "trials", where, values):
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

    def _has(self, measurement: Measurement) -> bool:
        key, quantity, context, purpose = measurement.identity
        where, values = _where(key=key, quantity=quantity, context=context, purpose=purpose)
        return bool(self._rows("key", "measurements", where, values))

    def _rows(self, columns: str, table: str, where: str, values: list[str]) -> list[Any]:
        query = f"SELECT {columns} FROM {table} {where} ORDER BY number"
        try:
            return self._connection.execute(query, values).fetchall()
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


def _check_ours(path: Path) -> None:
    """Read the header only: a file of another program is not even opened as a database."""
    with path.open("rb") as file:
        header = file.read(72)
    if not header:
        raise InputError(f"{path} is empty, so it is no store; delete it or give another path")
    if not header.startswith(b"SQLite format 3\0"):
        raise InputError(f"{path} is no SQLite database, so it is no store; give another path")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise InputError(
            f"{path} is a SQLite database of another program, not a store; give another path"
        )


def _create_file(path: Path) -> None:
    """Build the file under another name first: a kill leaves a whole store or none."""
    for suffix in ("-wal", "-shm", "-journal"):
        stale = path.with_name(path.name + suffix)
        if stale.exists():
            raise InputError(
                f"{stale} belongs to a store that is gone; put {path.name} back, or move it away"
            )
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(_connect(unfinished)) as connection:
        _migrate(connection)
    os.replace(unfinished, path)


def _check_readable(path: Path) -> None:
    """Refuse a damaged or newer file, on a connection of its own.

    SQLite refuses to checkpoint on a connection that checked the file and then turned it to WAL.
    """
    with contextlib.closing(_connect(path)) as connection:
        _check_sound(path, connection)


def _check_sound(path: Path, connection: sqlite3.Connection) -> None:
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise InputError(f"{path} is a damaged store: {problem}")
    if (version := _version(connection)) > len(MIGRATIONS):
        raise InputError(
            f"{path} has schema version {version}, written by a newer hwsearch; this one reads "
            f"up to {len(MIGRATIONS)}. Update hwsearch"
        )


def _open(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _copied(path: Path) -> sqlite3.Connection:
    """Copy a database into memory, with what its write-ahead log holds."""
    wal, shm = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        # Reading the log needs its index: SQLite makes one beside the file, and leaves it there.
        if not wal.exists():
            _back_up(f"{path.absolute().as_uri()}?immutable=1", memory)
        elif not (shm.exists() and _backed_up(f"{path.absolute().as_uri()}?mode=ro", memory)):
            with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
                for file in (path, wal):
                    shutil.copyfile(file, Path(scratch, file.name.replace(path.name, "store")))
                _back_up(Path(scratch, "store").as_uri(), memory)
        _check_sound(path, memory)
        _migrate(memory)
    except BaseException:
        memory.close()
        raise
    return memory


def _backed_up(uri: str, memory: sqlite3.Connection) -> bool:
    """Copy a database; False where SQLite has no permission to open it."""
    try:
        _back_up(uri, memory)
    except sqlite3.OperationalError:
        return False
    return True


def _back_up(uri: str, memory: sqlite3.Connection) -> None:
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as source:
        source.backup(memory)


def _migrate(connection: sqlite3.Connection) -> None:
    version = _version(connection)
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migration(connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise


def _connect(path: Path) -> sqlite3.Connection:
    # Without an isolation level Python starts no transactions of its own.
    return sqlite3.connect(path, isolation_level=None)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _where(**wanted: str | None) -> tuple[str, list[str]]:
    given = {column: str(value) for column, value in wanted.items() if value is not None}
    tests = " AND ".join(f"{column} = ?" for column in given)
    return (f"WHERE {tests}" if given else "", list(given.values()))


def _trial(row: tuple[Any, ...]) -> Trial:
    number, key, choices, round_, origin, state, reason, forecast = row
    return Trial(
        number=number,
        key=key,
        choices=parsed_json(choices),
        round=round_,
        origin=origin,
        state=TrialState(state),
        reason=reason,
        forecast=parsed_json(forecast),
    )


def _measurement_row(m: Measurement) -> tuple[object, ...]:
    samples = None
    if m.samples is not None:
        buffer = io.BytesIO()
        np.save(buffer, m.samples, allow_pickle=False)
        samples = buffer.getvalue()
    details = json.dumps(m.details, allow_nan=False)
    return (*m.identity, m.value, m.low, m.high, m.count, m.cost_s, samples, details)


def _measurement(row: tuple[Any, ...]) -> Measurement:
    key, quantity, context, purpose, value, low, high, count, cost_s, samples, details = row
    if samples is not None:
        samples = plain_array(io.BytesIO(samples))
    return Measurement(
        key=key,
        quantity=quantity,
        context=context,
        purpose=purpose,
        value=value,
        low=low,
        high=high,
        count=count,
        cost_s=cost_s,
        samples=samples,
        details=parsed_json(details),
    )
