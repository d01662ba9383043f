"""Files of a finished run: the table of the front or of the candidates, the search summary."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, read_bounded, write_atomic
from hwsearch.kit.manifest import KEY
from hwsearch.run.checksums import write_checksums
from hwsearch.run.config import FILE as CONFIG
from hwsearch.run.config import TRIALS
from hwsearch.run.search_summary import SearchSummary
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import EVIDENCE

if TYPE_CHECKING:
    import pandas as pd

FRONT, SUBNETS = "front.csv", "subnets"
CANDIDATES, KIT = "candidates.csv", "kit.pyz"
SUMMARY = "search.json"
# The report is drawn from these, and can be drawn again.
LISTED = (CONFIG, TRIALS, EVIDENCE, SUMMARY, KIT, SUBNETS)


def read_members(path: Path, objectives: Sequence[str]) -> "pd.DataFrame":
    """Read the table of the front or of the candidates, from an untrusted source.

    Raises:
        InputError: A column is missing or is not numeric, or a key, which names a folder of the
            run, is invalid.
    """
    import pandas as pd

    try:
        # Objectives are read as text: pandas before 3 loses their last bit.
        members = pd.read_csv(
            io.BytesIO(read_bounded(path, MAX_BYTES)),
            dtype=dict.fromkeys(("key", "weights", *objectives), str),
        )
        _check_members(members, objectives)
        for name in objectives:
            members[name] = members[name].astype(float)
    except (OSError, ValueError, TypeError, MemoryError) as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(
            f"{str(path)!r} is damaged: {reason}; a copy of the run, or a larger budget, brings "
            "it back"
        ) from error
    return members


def _check_members(members: "pd.DataFrame", objectives: Sequence[str]) -> None:
    lacking = {"key", "subnet", *objectives} - set(members.columns)
    if lacking or not len(members):
        raise ValueError(f"it has no {min(lacking, default='rows')}")
    for key in members["key"]:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(f"{key!r:.80} is no key")


def write_outcome(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    setup: Setup,
    summary: SearchSummary,
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
    write_checksums(folder, LISTED, {name: table})
    # Last, because a run with this file is finished.
    write_atomic(folder / name, table)
    (folder / other).unlink(missing_ok=True)
