"""Writing a report: the page of a run and the picture of its front."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwsearch.errors import InputError
from hwsearch.files import write_atomic
from hwsearch.report.front_picture import draw_front
from hwsearch.report.page import page_of
from hwsearch.report.run_data import RunData, read_run_data
from hwsearch.run.config import PICTURE, REPORT

if TYPE_CHECKING:
    from hwsearch.run.folder import RunFolder
    from hwsearch.run.setup import Setup

COMPARISON: Final = "comparison.html"


def write_report(runs: "Sequence[RunFolder]", to: Path | None = None) -> list[Path]:
    """Write the page of a run and the picture of its front, or the page that compares several.

    By default ``to`` is ``report.html`` in the run's folder, or ``comparison.html`` in that of
    the first run; the picture of another page is ``STEM-front.png``. Return the files, the page
    first. Raise InputError if a run cannot be read or the file cannot be written.
    """
    home = runs[0].folder
    path = to or home / (REPORT if len(runs) == 1 else COMPARISON)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give the name of an HTML file")
    known = [read_run_data(run) for run in runs]
    picture = path.with_name(PICTURE if path == home / REPORT else f"{path.stem}-{PICTURE}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _write(known, path, picture)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be written: {error}; give a file elsewhere by --out"
        ) from error


def write_own_report(run: "RunFolder", setup: "Setup | None" = None) -> None:
    """Write page and picture into the folder of a finished run."""
    _write([read_run_data(run, setup)], run.folder / REPORT, run.folder / PICTURE)


def _write(known: Sequence[RunData], path: Path, picture: Path) -> list[Path]:
    write_atomic(path, page_of(known))
    if len(known) > 1 or known[0].members is None:
        return [path]
    draw_front(picture, known[0])
    return [path, picture]
