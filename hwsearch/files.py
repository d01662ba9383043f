"""Atomic writes, bounded reads and digests of files."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# Of a JSON or TOML file: parsed, small objects take about 40 times the memory of their text.
MAX_BYTES = 16 * 2**20
_BOM = "\ufeff"
DIGITS = 16  # of a SHA-256, as an identifier
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems that flush no folder
# Raised for a damaged array or zip; the header of an array is parsed as Python.
_OF_ARRAYS = (
    RuntimeError,
    SyntaxError,
    TypeError,
    KeyError,
    EOFError,
    OSError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# Of a disk that is full, read-only or failing.
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``final`` at the end, unless an error is raised.

    Its files are flushed to disk first, so that a folder under the final name is always complete.
    Permissions follow the umask.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = _beside(final)
    folder.mkdir()
    try:
        yield folder
        for path in (*folder.rglob("*"), folder):
            flush(path)
        if final.exists():
            shutil.rmtree(final)
        folder.rename(final)
        flush(final.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_file(final: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that is renamed to ``final`` at the end, unless an error is raised.

    It is flushed to disk first. Permissions follow the umask, unlike those of `tempfile`.
    """
    path = _beside(final)
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.replace(final)
        flush(final.parent)
    finally:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or none; see `staged_file`."""
    with staged_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _beside(final: Path) -> Path:
    """Return a temporary name beside ``final``; `hwsearch.run.disk_usage` knows its form."""
    return final.with_name(f".{final.name}.{secrets.token_hex(4)}")


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(handle)


def plain_array(file: IO[bytes]) -> NDArray[Any]:
    """Read an untrusted array (``.npy``); raise ValueError if it is none, damaged, or pickled.

    MemoryError is raised where its header claims more than there is memory for.
    """
    with _readable():
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
    raise ValueError("these are several arrays by name (.npz), not a single one (.npy)")


def plain_arrays(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Read untrusted arrays by name (``.npz``); raises as `plain_array`."""
    with _readable():
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            return {name: found[name] for name in found}
    raise ValueError("it is a single array (.npy), not several by name (.npz)")


def unpacked_size(file: IO[bytes] | Path) -> int:
    """Return the total unpacked bytes that a zip states; raise ValueError if it is none."""
    with _readable(), zipfile.ZipFile(file) as archive:
        return sum(entry.file_size for entry in archive.infolist())


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _OF_ARRAYS as error:
        raise ValueError(f"no arrays that can be read: {error}") from error


def file_system(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system of a path, such as ``"ext4"``; ``""`` if unknown."""
    if mounts is None:
        listed = Path("/proc/self/mountinfo")
        mounts = listed.read_text(encoding="utf-8") if listed.is_file() else ""
    where, kind, longest = path.resolve(), "", -1
    for line in mounts.splitlines():
        fields, _, of = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields.split()[4])
        # A later mount on the same point hides the earlier one.
        if where.is_relative_to(point) and len(point) >= longest:
            kind, longest = of.split()[0], len(point)
    return kind


def read_bounded(path: Path, most: int) -> bytes:
    """Read an untrusted file of at most ``most`` bytes; raise ValueError, unread, if larger."""
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"it takes {size / 2**20:,.0f} MB, and {most / 2**20:,.0f} are allowed")
    return path.read_bytes()


def decoded(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark."""
    return data.decode("utf-8-sig")


def parsed_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Parse untrusted JSON (UTF-8, BOM allowed); raise ValueError if invalid or not ``finite``."""
    try:
        text = decoded(text) if isinstance(text, bytes) else text.removeprefix(_BOM)
        return json.loads(text, parse_constant=_refused if finite else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is no number")


def digest_of_text(text: str) -> str:
    """Return 16 hex digits that identify a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    found = hashlib.sha256()  # Python 3.10, which kits run on, has no `hashlib.file_digest`
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()
