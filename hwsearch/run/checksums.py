"""SHA-256 checksums of the files of a finished run, in the format of ``sha256sum``."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from hwsearch.files import sha256_of, write_atomic

CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path, names: Iterable[str], last: Mapping[str, str]) -> None:
    """Write ``SHA256SUMS`` of the existing ones of files and folders.

    ``last`` has name -> text of files that are written after this one.
    """
    found = [each for name in names for each in (folder / name, *(folder / name).rglob("*"))]
    files = (path for path in found if path.is_file())
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    sums |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in last.items()}
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_atomic(folder / CHECKSUMS, "".join(lines))


def remove_checksums(folder: Path) -> None:
    """Remove ``SHA256SUMS``, before a listed file changes."""
    (folder / CHECKSUMS).unlink(missing_ok=True)


def damaged_files(folder: Path) -> dict[str, str]:
    """Return name -> problem of missing or changed files; empty for a run without checksums."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    # str.splitlines would also split at bytes that damage can turn into other line breaks.
    for line in path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n"):
        digest, _, name = line.partition("  ")
        if not name or not _lies_inside(folder, name):
            found[CHECKSUMS] = f"it is damaged: {line!r:.120} names no file of the run"
        elif not (folder / name).is_file():
            found[name] = "it is missing"
        elif sha256_of(folder / name) != digest:
            found[name] = f"it is not the file that {CHECKSUMS} describes"
    return found


def _lies_inside(folder: Path, name: str) -> bool:
    return "\0" not in name and (folder / name).resolve().is_relative_to(folder.resolve())
