"""What a run ends with, as files: the front or the candidates, their picture, their subnets."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.files import write_atomic
from hwsearch.report.picture import draw_front
from hwsearch.report.search_picture import draw_search
from hwsearch.run.account import Account
from hwsearch.run.setup import Setup

if TYPE_CHECKING:
    import pandas as pd

FRONT, SUBNETS, PICTURE = "front.csv", "subnets", "front.png"
CANDIDATES, KIT = "candidates.csv", "kit.pyz"
ACCOUNT, SEARCH_PICTURE = "search.json", "search.png"
REPORT = "report.html"


def write_outcome(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    trials: "pd.DataFrame",
    setup: Setup,
    title: str,
    account: Account,
) -> None:
    """Write the front, or the candidates where something is predicted.

    Exported subnets that are not among the rows are removed.

    Args:
        folder: Of the run.
        rows: One per member; the first column of a choice follows that of the subnet's folder.
        trials: One row per trial, a column for each objective.
        setup: The parts of the run.
        title: What was searched, and for which device.
        account: What the search was worth.
    """
    import pandas as pd

    keep = {row["key"] for row in rows}
    for subnet in (folder / SUBNETS).iterdir():
        if subnet.name not in keep:
            shutil.rmtree(subnet)  # no longer on the front, or left half-written
    members = pd.DataFrame(rows)
    choices = members.columns[members.columns.get_loc("subnet") + 1 :]
    members[choices] = members[choices].convert_dtypes()  # an inactive one makes no 2 a 2.0
    draw_front(folder / PICTURE, trials, members, setup.objectives, title)
    draw_search(folder / SEARCH_PICTURE, account, members, setup.objectives, title)
    write_atomic(folder / ACCOUNT, account.to_json())
    predicted = any(f"{objective.name}_source" in members for objective in setup.objectives)
    name, other = (CANDIDATES, FRONT) if predicted else (FRONT, CANDIDATES)
    # Last, because a run with this file is finished.
    write_atomic(folder / name, members.to_csv(index=False))
    (folder / other).unlink(missing_ok=True)
