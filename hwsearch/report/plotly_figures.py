"""Parts of plotly figures: traces, layouts, labels and colours, as plain dictionaries.

A trace's ``meta`` says what it stands for; `COLOURS` has its colour, for which the page puts that
of its scheme. Texts of a run are escaped: plotly reads tags in them.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from hwsearch.objectives import Objective
from hwsearch.report.run_data import RunData
from hwsearch.stages import stage_lines

Figure = dict[str, Any]
Trace = dict[str, Any]

# Distinct to every kind of colour vision (Okabe and Ito, 2008).
COLOURS: Final = {
    "front": "#0072b2",
    "second": "#cc79a7",
    "uniform": "#009e73",
    "largest": "#d55e00",
    "random": "#d55e00",
    "knee": "#c8452f",
    "trials": "#6b7480",
    "limit": "#6b7480",
}
_DIGITS: Final = 6  # more are noise, and weigh in a file


def axis_label(data: RunData, objective: Objective) -> str:
    """Return the name of an objective with its unit, and that it is predicted where it is."""
    unit = f" ({objective.unit})" if objective.unit else ""
    return f"{objective.name}{unit}{', predicted' if objective.name in data.predicted else ''}"


def label(data: RunData, objective: Objective) -> str:
    """Return `axis_label`, escaped for plotly."""
    return escape(axis_label(data, objective))


def unit_of(objective: Objective) -> str:
    """Return `` (UNIT)``, escaped, as titles have it; empty without a unit."""
    return f" ({escape(objective.unit)})" if objective.unit else ""


def hover(data: RunData, across: Objective | None) -> str:
    """Return how a point states its numbers."""
    up = f"{escape(data.up.name)} %{{y:.4g}} {escape(data.up.unit)}"
    if across is None:
        return up
    return f"{up}, {escape(across.name)} %{{x:.4g}} {escape(across.unit)}"


def trace(role: str, name: str, x: Iterable[Any], y: Iterable[Any]) -> Trace:
    """Return a trace of points; what it stands for decides its colour."""
    return {"type": "scatter", "meta": role, "name": name, "x": plain(x), "y": plain(y)}


def interval(values: Sequence[tuple[float, float | None, float | None]]) -> dict[str, Any]:
    """Error bars of values with their intervals; none where there are no intervals."""
    if any(low is None for _, low, _ in values):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": plain(max(high - value, 0.0) for value, _, high in values if high is not None),
        "arrayminus": plain(max(value - low, 0.0) for value, low, _ in values if low is not None),
        "thickness": 1.2,
        "width": 3,
    }


def error_bars(half: Iterable[float]) -> dict[str, Any]:
    """Return symmetric bars, thin because there are many."""
    return {"type": "data", "array": plain(half), "thickness": 0.7, "width": 0}


def diagonal(values: Sequence[float]) -> Trace:
    """Return the line on which two numbers are equal, over the range of these values."""
    ends = [min(values), max(values)] if values else []
    line = trace("limit", "equal", ends, ends)
    return line | {"mode": "lines", "line": {"dash": "dash", "width": 1.2}, "hoverinfo": "skip"}


def layout_of(across: str, up: str, hovermode: str) -> dict[str, Any]:
    """Return the layout that all plots share; titles are escaped already."""
    axis = {"zeroline": False, "automargin": True, "gridcolor": "rgba(128,128,128,0.18)"}
    return {
        "xaxis": {**axis, "title": {"text": across}},
        "yaxis": {**axis, "title": {"text": up}},
        "hovermode": hovermode,
        "hoverlabel": {"align": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    }


def plain(values: Iterable[Any]) -> list[Any]:
    """Short JSON values: six digits, and None for what is not known."""
    return [short(value) for value in values]


def short(value: Any) -> Any:
    """A short JSON value; see `plain`."""
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None


def coloured(figure: Figure) -> Figure:
    """Give every trace the colour of what it stands for, as on a light page."""
    for each in figure["data"]:
        colour = COLOURS[each["meta"]]
        each["marker"] = {**each.get("marker", {}), "color": colour}
        if each["type"] == "scatter":
            each["line"] = {**each.get("line", {}), "color": colour}
    return figure


def described(data: RunData, number: int) -> str:
    """Say a trial's architecture in lines, with tags of plotly's."""
    trial = data.trials[number]
    lines = [
        f"{escape(stage)} {escape(text)}".strip() for stage, text in stage_lines(trial.choices)
    ]
    return "<br>".join([f"<b>{trial.key}</b>", *lines])


def with_texts(data: RunData, figure: Figure) -> Figure:
    """Give every point of a trial its architecture as a text; the page has its own."""
    for each in figure["data"]:
        if "customdata" in each:
            each["text"] = [described(data, number) for number in each["customdata"]]
            each["hovertemplate"] = f"{each['hovertemplate']}<br>%{{text}}<extra></extra>"
    return figure
