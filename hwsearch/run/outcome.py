"""Files of a finished run: table of the front or of the candidates, summary, checksums."""

import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, read_bounded, sha256_of, write_atomic
from hwsearch.kit.manifest import KEY
from hwsearch.run.config import FILE, TRIALS
from hwsearch.run.search_summary import SearchSummary
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import EVIDENCE

if TYPE_CHECKING:
    import pandas as pd

FRONT, SUBNETS = "front.csv", "subnets"
CANDIDATES, KIT = "candidates.csv", "kit.pyz"
SUMMARY = "search.json"
CHECKSUMS = "SHA256SUMS"  # in the format of sha256sum
# The report is drawn from these, and can be drawn again.
LISTED = (FILE, TRIALS, EVIDENCE, SUMMARY, KIT, SUBNETS)


def read_members(path: Path, objectives: Sequence[str]) -> "pd.DataFrame":
    """Read the table of the front or of the candidates, from an untrusted source.

    Raise InputError for a missing or unnumeric column, or an invalid key, which names a folder.
    """
    import pandas as pd

    try:
        # Objectives are read as text: pandas before 3 loses their last bit.
        members = pd.read_csv(
            io.BytesIO(read_bounded(path, MAX_BYTES)),
            dtype=dict.fromkeys(("key", "weights", *objectives), str),
        )
        _check_members(members, objectives)
        return members.astype(dict.fromkeys(objectives, float))
    except (OSError, ValueError, TypeError, MemoryError) as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(
            f"{str(path)!r} is damaged: {reason}; a copy of the run, or a larger budget, brings "
            "it back"
        ) from error


def _check_members(members: "pd.DataFrame", objectives: Sequence[str]) -> None:
    lacking = {"key", "subnet", *objectives} - set(members.columns)
    if lacking or not len(members):
        raise ValueError(f"it has no {min(lacking, default='rows')}")
    for key in members["key"]:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(f"{key!r:.80} is no key")


def write_outcome(
    folder: Path, rows: Sequence[dict[str, Any]], setup: Setup, summary: SearchSummary
) -> None:
    """Write the table of the front, or of the candidates if a value is predicted, and checksums.

    Exported subnets without a row are removed. The columns of choices follow column ``subnet``.
    """
    import pandas as pd

    keep = {row["key"] for row in rows}
    for subnet in (folder / SUBNETS).iterdir():
        if subnet.name not in keep:
            shutil.rmtree(subnet)  # no longer on the front, or left half-written
    members = pd.DataFrame(rows)
    choices = members.columns[members.columns.get_loc("subnet") + 1 :]
    members[choices] = members[choices].convert_dtypes()  # an inactive one makes no 2 a 2.0
    predicted = any(f"{objective.name}_source" in members for objective in setup.objectives)
    name, other = (CANDIDATES, FRONT) if predicted else (FRONT, CANDIDATES)
    table = members.to_csv(index=False)
    write_atomic(folder / SUMMARY, summary.to_json())
    write_checksums(folder, name, table)
    # Last, because a run with this file is finished.
    write_atomic(folder / name, table)
    (folder / other).unlink(missing_ok=True)


def write_checksums(folder: Path, last: str, text: str) -> None:
    """Write the SHA-256 of the run's files, and of the text of a file that is written last."""
    found = [each for name in LISTED for each in (folder / name, *(folder / name).rglob("*"))]
    files = (path for path in found if path.is_file())
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    sums[last] = hashlib.sha256(text.encode()).hexdigest()
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_atomic(folder / CHECKSUMS, "".join(lines))


def remove_checksums(folder: Path) -> None:
    """Remove the checksums, before a listed file changes."""
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
        named = name and "\0" not in name
        if not (named and (folder / name).resolve().is_relative_to(folder.resolve())):
            found[CHECKSUMS] = f"it is damaged: {line!r:.120} names no file of the run"
        elif not (folder / name).is_file():
            found[name] = "it is missing"
        elif sha256_of(folder / name) != digest:
            found[name] = f"it is not the file that {CHECKSUMS} describes"
    return found
