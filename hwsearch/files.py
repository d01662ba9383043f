"""Files and folders that are complete or not there, and what identifies them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DIGITS = 16  # of a SHA-256 that name something among others of its kind


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a new folder beside ``final`` that takes its name at the end, unless an error comes.

    What stood under the final name is replaced; a folder under that name is always complete.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        folder.chmod(0o755)
        yield folder
        if final.exists():
            shutil.rmtree(final)
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def digest_of_text(text: str) -> str:
    """16 digits that identify a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()
