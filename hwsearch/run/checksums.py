"""``SHA256SUMS`` of a finished run: what its files were when it ended, for ``verify`` to compare.

It has the format of ``sha256sum``, so that ``sha256sum -c SHA256SUMS`` compares them too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from hwsearch.files import sha256_of, write_atomic

SUMS = "SHA256SUMS"


def write_sums(folder: Path, names: Iterable[str], last: Mapping[str, str]) -> None:
    """List files of a run.

    Args:
        folder: Of the run.
        names: Of files and of folders that are listed with all that they hold, if they are there.
        last: Name -> text of what is still to be written, because it says that the run is over.
    """
    found = [each for name in names for each in (folder / name, *(folder / name).rglob("*"))]
    files = (path for path in found if path.is_file())
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    sums |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in last.items()}
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_atomic(folder / SUMS, "".join(lines))


def forget_sums(folder: Path) -> None:
    """Take the list away before anything in it changes."""
    (folder / SUMS).unlink(missing_ok=True)


def damaged_files(folder: Path) -> dict[str, str]:
    """Compare the files of a run with its list.

    Returns:
        Name -> what is wrong with it, for every file that is not as it was; empty for a run that
        has no list.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    # Not by splitlines, which takes a damaged line break for one.
    for line in path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n"):
        digest, _, name = line.partition("  ")
        if not name or not _lies_inside(folder, name):
            found[SUMS] = f"it is damaged: {line!r:.120} names no file of the run"
        elif not (folder / name).is_file():
            found[name] = "it is missing"
        elif sha256_of(folder / name) != digest:
            found[name] = f"it is not the file that {SUMS} describes"
    return found


def _lies_inside(folder: Path, name: str) -> bool:
    return "\0" not in name and (folder / name).resolve().is_relative_to(folder.resolve())
