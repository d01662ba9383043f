"""The SQLite schema of a store: creating, checking, opening, copying and migrating its file."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hwsearch.errors import InputError

APPLICATION_ID = int.from_bytes(b"hwsr", "big")
MEMORY = ":memory:"


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


def open_store(path: Path) -> sqlite3.Connection:
    """Open a store for writing, migrated to the newest schema; create it if there is none.

    InputError is raised if it is no store, is damaged or newer, or cannot be opened.
    """
    with _refusals(path):
        if str(path) != MEMORY:
            _prepare(path)
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


def copy_store(path: Path, memory: sqlite3.Connection) -> None:
    """Copy a database into memory, including its write-ahead log; raises as `open_store`."""
    wal, shm = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    with _refusals(path):
        _check_ours(path)
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


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be opened as a store: {error}") from error


def _prepare(path: Path) -> None:
    """Check an existing file, or create an empty store atomically."""
    if path.exists():
        _check_ours(path)
        # SQLite refuses to checkpoint on a connection that checked the file and then turned it
        # to write-ahead mode: it is checked on a connection of its own.
        with contextlib.closing(_connect(path)) as connection:
            _check_sound(path, connection)
        return
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


def _check_ours(path: Path) -> None:
    """Raise InputError if the header is not of a store; the file is not opened as a database."""
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


def _check_sound(path: Path, connection: sqlite3.Connection) -> None:
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise InputError(f"{path} is a damaged store: {problem}")
    if (version := _version(connection)) > len(MIGRATIONS):
        raise InputError(
            f"{path} has schema version {version}, written by a newer hwsearch; this one reads "
            f"up to {len(MIGRATIONS)}. Update hwsearch"
        )


def _backed_up(uri: str, memory: sqlite3.Connection) -> bool:
    """Copy a database; return False if SQLite has no permission to open it."""
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
    # Without an isolation level Python starts no transactions of its own. A store that is only
    # collected may be closed in another thread than its own.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
