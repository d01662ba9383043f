"""Parts of plotly figures: traces, layouts, labels and colours, as plain dictionaries.

A trace's ``meta`` is its role; `COLOURS` has the role's colour, which the page replaces by that
of its colour scheme. Texts of a run are escaped: plotly reads tags in them.
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
    """Return an objective's name with its unit, marked where predicted."""
    unit = f" ({objective.unit})" if objective.unit else ""
    return f"{objective.name}{unit}{', predicted' if objective.name in data.predicted else ''}"


def label(data: RunData, objective: Objective) -> str:
    """Return `axis_label`, escaped for plotly."""
    return escape(axis_label(data, objective))


def unit_of(objective: Objective) -> str:
    """Return `` (UNIT)``, escaped; empty without a unit."""
    return f" ({escape(objective.unit)})" if objective.unit else ""


def hover(data: RunData, across: Objective | None) -> str:
    """Return the hover template of a point."""
    up = f"{escape(data.up.name)} %{{y:.4g}} {escape(data.up.unit)}"
    if across is None:
        return up
    return f"{up}, {escape(across.name)} %{{x:.4g}} {escape(across.unit)}"


def trace(role: str, name: str, x: Iterable[Any], y: Iterable[Any]) -> Trace:
    """Return a trace of points; its role decides its colour."""
    return {"type": "scatter", "meta": role, "name": name, "x": plain(x), "y": plain(y)}


def interval(values: Sequence[tuple[float, float | None, float | None]]) -> dict[str, Any]:
    """Return error bars of (value, low, high); empty without intervals."""
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
    """Return thin symmetric error bars."""
    return {"type": "data", "array": plain(half), "thickness": 0.7, "width": 0}


def diagonal(values: Sequence[float]) -> Trace:
    """Return the line of equality over the range of these values."""
    ends = [min(values), max(values)] if values else []
    line = trace("limit", "equal", ends, ends)
    return line | {"mode": "lines", "line": {"dash": "dash", "width": 1.2}, "hoverinfo": "skip"}


def layout_of(across: str, up: str, hovermode: str) -> dict[str, Any]:
    """Return the layout that all plots share; titles must be escaped."""
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
    """Return JSON values rounded to six digits; None for unknown ones."""
    return [short(value) for value in values]


def short(value: Any) -> Any:
    """Return one JSON value as `plain` does."""
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None


def coloured(figure: Figure) -> Figure:
    """Give every trace the colour of its role on a light page."""
    for each in figure["data"]:
        colour = COLOURS[each["meta"]]
        each["marker"] = {**each.get("marker", {}), "color": colour}
        if each["type"] == "scatter":
            each["line"] = {**each.get("line", {}), "color": colour}
    return figure


def described(data: RunData, number: int) -> str:
    """Return a trial's architecture in lines, with plotly tags."""
    trial = data.trials[number]
    lines = [
        f"{escape(stage)} {escape(text)}".strip() for stage, text in stage_lines(trial.choices)
    ]
    return "<br>".join([f"<b>{trial.key}</b>", *lines])


def with_texts(data: RunData, figure: Figure) -> Figure:
    """Add each trial's architecture as hover text."""
    for each in figure["data"]:
        if "customdata" in each:
            each["text"] = [described(data, number) for number in each["customdata"]]
            each["hovertemplate"] = f"{each['hovertemplate']}<br>%{{text}}<extra></extra>"
    return figure
