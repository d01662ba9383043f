"""The HTML page: one file with its data, script and plotly, without external resources."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

import hwsearch
from hwsearch.report.comparison import compared
from hwsearch.report.page_data import page_data
from hwsearch.report.run_data import RunData

_SCRIPTS: Final = ("base.js", "plots.js", "archs.js", "card.js", "trials.js", "page.js")


def page_of(runs: Sequence[RunData]) -> str:
    """Return the page of a run, or of several that are compared."""
    contents = {
        "title": " and ".join(dict.fromkeys(data.run.title for data in runs)),
        "version": hwsearch.__version__,
        "runs": [page_data(data) for data in runs],
        "compare": compared(runs) if len(runs) > 1 else None,
    }
    parts = {
        "title": escape(f"{contents['title']} - hwsearch"),
        "style": _own("page.css"),
        "contents": as_script_text(contents),
        # A closing script tag ends the element even inside a string.
        "plotly": _plotly().replace("</script", "<\\/script"),
        "script": "\n".join(_own(name) for name in _SCRIPTS),
    }
    pieces = _own("page.html").split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def as_script_text(contents: dict[str, Any]) -> str:
    """Return JSON in which no text can end the script element."""
    text = json.dumps(contents, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _own(name: str) -> str:
    return files("hwsearch.report").joinpath("page", name).read_text(encoding="utf-8")


def _plotly() -> str:
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
