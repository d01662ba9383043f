"""Writing a report: the page, and its pictures beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwsearch.errors import InputError
from hwsearch.files import write_atomic
from hwsearch.report.archs_picture import draw_architectures
from hwsearch.report.facts import Facts, read_facts
from hwsearch.report.fronts_picture import draw_fronts
from hwsearch.report.page import page_of
from hwsearch.report.picture import draw_front
from hwsearch.report.search_picture import draw_search
from hwsearch.run.config import REPORT
from hwsearch.run.outcome import PICTURE, SEARCH_PICTURE

if TYPE_CHECKING:
    import pandas as pd

    from hwsearch.run.folder import Run
    from hwsearch.run.setup import Setup

COMPARISON: Final = "comparison.html"
ARCHITECTURES: Final = "architectures.png"


def write_report(runs: "Sequence[Run]", to: Path | None = None) -> list[Path]:
    """Write the page of a run, or of several that are compared, and the pictures beside it.

    Args:
        runs: At least one, finished or not.
        to: The HTML file; by default ``report.html`` in the run's folder, or ``comparison.html``
            in that of the first run. Pictures elsewhere have its name before theirs.

    Returns:
        What was written, the page first.

    Raises:
        InputError: A run cannot be read, or the file is a folder.
    """
    home = runs[0].folder
    path = to or home / (REPORT if len(runs) == 1 else COMPARISON)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give the name of an HTML file")
    known = [read_facts(run) for run in runs]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page_of(known))
    if len(runs) > 1:
        pictures = [path.with_suffix(".png")]
        draw_fronts(pictures[0], known)
    else:
        own = path == home / REPORT
        pictures = _draw(known[0], path.parent, "" if own else f"{path.stem}-")
    return [path, *(picture for picture in pictures if picture.exists())]


def write_page(run: "Run", setup: "Setup | None" = None) -> None:
    """Write a run's own page at its end, when its other pictures are drawn.

    Args:
        run: The run, finished.
        setup: Its parts, where they are loaded.
    """
    facts = read_facts(run, setup)
    _draw_members(facts, run.folder / ARCHITECTURES)
    write_atomic(run.folder / REPORT, page_of([facts]))


def _draw(facts: Facts, folder: Path, before: str) -> list[Path]:
    """Draw what there is of a run; one that is not finished has no front to draw."""
    if facts.members is None:
        return []
    paths = [folder / f"{before}{name}" for name in (PICTURE, SEARCH_PICTURE, ARCHITECTURES)]
    title, objectives = facts.run.title, facts.objectives
    draw_front(paths[0], _trials(facts), facts.members, objectives, title)
    if facts.summary is not None:
        draw_search(paths[1], facts.summary, facts.members, objectives, title)
    _draw_members(facts, paths[2])
    return paths


def _draw_members(facts: Facts, path: Path) -> None:
    draw_architectures(path, facts)


def _trials(facts: Facts) -> "pd.DataFrame":
    import pandas as pd

    states = [str(trial.state) for trial in facts.trials]
    return pd.DataFrame({"number": range(len(states)), "state": states, **facts.values})
