"""Writing a report: the page of a run, and the picture of its front.

The page is one file with its data, script and plotly, without external resources.
"""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

import hwsearch
from hwsearch.errors import InputError
from hwsearch.files import write_atomic
from hwsearch.report.comparison import compared
from hwsearch.report.front_figure import draw_front
from hwsearch.report.page_data import page_data
from hwsearch.report.run_data import RunData, read_run_data
from hwsearch.run.config import PICTURE, REPORT

if TYPE_CHECKING:
    from hwsearch.run.folder import RunFolder
    from hwsearch.run.setup import Setup

COMPARISON: Final = "comparison.html"
_SCRIPTS: Final = ("base.js", "plots.js", "archs.js", "card.js", "trials.js", "page.js")


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _write(known, path)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be written: {error}; give a file elsewhere by --out"
        ) from error


def write_own_report(run: "RunFolder", setup: "Setup | None" = None) -> None:
    """Write page and picture into the folder of a finished run."""
    _write([read_run_data(run, setup)], run.folder / REPORT)


def _write(known: Sequence[RunData], path: Path) -> list[Path]:
    write_atomic(path, page_of(known))
    if len(known) > 1 or known[0].members is None:
        return [path]
    own = path == known[0].run.folder / REPORT
    picture = path.with_name(PICTURE if own else f"{path.stem}-{PICTURE}")
    draw_front(picture, known[0])
    return [path, picture]


def page_of(runs: Sequence[RunData]) -> str:
    """Return the page of a run, or of several that are compared."""
    contents = {
        "title": " and ".join(dict.fromkeys(data.run.title for data in runs)),
        "version": hwsearch.__version__,
        "runs": [page_data(data) for data in runs],
        "compare": compared(runs) if len(runs) > 1 else None,
    }
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    parts = {
        "title": escape(f"{contents['title']} - hwsearch"),
        "style": _own("page.css"),
        "contents": as_script_text(contents),
        # A closing script tag ends the element even inside a string.
        "plotly": plotly.replace("</script", "<\\/script"),
        "script": "\n".join(_own(name) for name in _SCRIPTS),
    }
    return Template(_own("page.html")).substitute(parts)


def as_script_text(contents: dict[str, Any]) -> str:
    """Return JSON in which no text can end the script element."""
    text = json.dumps(contents, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _own(name: str) -> str:
    return files("hwsearch.report").joinpath("page", name).read_text(encoding="utf-8")
