"""Plotly figures of the page besides the front, and the parts of all figures.

Figures are plain dictionaries. A trace's ``meta`` is its role; `COLOURS` has the role's colour,
which the page replaces by that of its colour scheme. Texts of a run are escaped: plotly reads tags
in them.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.metric import Z95
from hwsearch.architectures import stage_lines
from hwsearch.objectives import Objective, to_losses
from hwsearch.optimizer.stopping import LOOKAHEAD
from hwsearch.prediction.bayesian_regression import evenly_spaced
from hwsearch.report.importance import Effect, Importance
from hwsearch.report.run_data import RunData
from hwsearch.report.stages import common_path
from hwsearch.run.search_summary import SearchSummary

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
MOST_POINTS: Final = 500  # of plots in which more would cover each other, and slow the page
_LONG_NAME: Final = 40  # characters, beyond which what all names begin with is left out
_DIGITS: Final = 6  # more are noise, and weigh in a file


def label(data: RunData, objective: Objective) -> str:
    """Return an objective's name with its unit, marked where predicted."""
    predicted = ", predicted" if objective.name in data.predicted else ""
    return f"{escape(objective.name)}{unit_of(objective)}{predicted}"


def unit_of(objective: Objective) -> str:
    """Return `` (UNIT)``, escaped; empty without a unit."""
    return f" ({escape(objective.unit)})" if objective.unit else ""


def hover(data: RunData, across: Objective | None) -> str:
    """Return the hover template of a point."""
    up = f"{escape(data.up.name)} %{{y:.4g}} {escape(data.up.unit)}"
    if across is None:
        return up
    return f"{up}, {escape(across.name)} %{{x:.4g}} {escape(across.unit)}"


def trace(role: str, name: str, x: Iterable[Any], y: Iterable[Any], **drawn: Any) -> Trace:
    """Return a trace of points; its role decides its colour, ``drawn`` how it is drawn."""
    return {"type": "scatter", "meta": role, "name": name, "x": plain(x), "y": plain(y), **drawn}


def interval(values: Sequence[tuple[float, float | None, float | None]]) -> dict[str, Any]:
    """Return error bars of (value, low, high); invisible ones without intervals."""
    known = [each for each in values if each[1] is not None and each[2] is not None]
    if len(known) < len(values):
        return {"visible": False}
    ends = np.array(known, float).reshape(-1, 3)
    return {
        "type": "data",
        "symmetric": False,
        "array": plain(np.maximum(ends[:, 2] - ends[:, 0], 0.0)),
        "arrayminus": plain(np.maximum(ends[:, 0] - ends[:, 1], 0.0)),
        "thickness": 1.2,
        "width": 3,
    }


def diagonal(values: Sequence[float]) -> Trace:
    """Return the line of equality over the range of these values."""
    ends = [min(values), max(values)] if values else []
    line = {"dash": "dash", "width": 1.2}
    return trace("limit", "equal", ends, ends, mode="lines", line=line, hoverinfo="skip")


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


def coloured(data: RunData, figure: Figure) -> Figure:
    """Give traces the colours of a light page, and each trial its architecture as hover text."""
    for each in figure["data"]:
        colour = COLOURS[each["meta"]]
        each["marker"] = {**each.get("marker", {}), "color": colour}
        each["line"] = {**each.get("line", {}), "color": colour}
        if "customdata" in each:
            each["text"] = [_described(data, number) for number in each["customdata"]]
            each["hovertemplate"] = f"{each['hovertemplate']}<br>%{{text}}<extra></extra>"
    return figure


def _described(data: RunData, number: int) -> str:
    trial = data.trials[number]
    lines = [
        f"{escape(stage)} {escape(text)}".strip() for stage, text in stage_lines(trial.choices)
    ]
    return "<br>".join([f"<b>{trial.key}</b>", *lines])


def progress_figure(summary: SearchSummary) -> Figure:
    """Draw hypervolume over evaluations, beside uniform scaling and random sets."""
    reached, end = summary.hypervolumes[-1], summary.evaluated

    def line(role: str, name: str, x: Iterable[float], y: Iterable[float], **style: Any) -> Trace:
        return trace(role, name, x, y, mode="lines", line={"width": 2, **style})

    steps = range(1, end + 1), summary.hypervolumes
    traces = [line("front", "this search", *steps, shape="hv", width=2.5)]
    if summary.gain is not None:
        ahead = [end, end + LOOKAHEAD], [reached, reached + summary.gain]
        traces.append(line("front", f"{LOOKAHEAD} more, predicted", *ahead, dash="dot"))
        end += LOOKAHEAD
    for role, name, value, dash in (
        ("random", "drawn by chance, predicted", summary.random, "dash"),
        ("uniform", "uniform scaling", summary.uniform_hypervolume, "dashdot"),
    ):
        if value is not None:
            traces.append(line(role, name, [1, end], [value, value], dash=dash))
    units = " x ".join(escape(unit or name) for name, unit in summary.objectives.items())
    layout = layout_of("evaluations", f"hypervolume ({units})", hovermode="x unified")
    layout["yaxis"]["rangemode"] = "tozero"
    return {"data": traces, "layout": layout}


def forecast_figure(data: RunData, objective: Objective) -> Figure:
    """Draw the trials' predicted values, at proposal, against the measured ones."""
    rows = [
        (number, *trial.forecast[objective.name], float(data.values[objective.name][number]))
        for number, trial in enumerate(data.trials)
        if objective.name in trial.forecast and not math.isnan(data.values[objective.name][number])
    ]
    kept = [rows[row] for row in evenly_spaced(len(rows), MOST_POINTS)]
    numbers, means, deviations, measured = zip(*kept, strict=True) if kept else ((), (), (), ())
    half = plain(np.multiply(deviations, Z95))
    points = trace(
        "front",
        "trials" if len(kept) == len(rows) else f"{len(kept)} of {len(rows)} trials",
        means,
        measured,
        mode="markers",
        marker={"size": 7, "opacity": 0.8},
        customdata=list(numbers),
        error_x={"type": "data", "array": half, "thickness": 0.7, "width": 0},
        hovertemplate=f"predicted %{{x:.4g}}, measured %{{y:.4g}} {escape(objective.unit)}",
    )
    name, unit = escape(objective.name), unit_of(objective)
    layout = layout_of(f"{name}, predicted{unit}", f"{name}, measured{unit}", hovermode="closest")
    return {"data": [diagonal([*means, *measured]), points], "layout": layout}


def importance_figure(data: RunData, found: Importance) -> Figure:
    """Draw the effect of each choice, the largest on top."""
    effects = sorted(found.effects, key=lambda effect: abs(effect.change))
    objective = next(o for o in data.objectives if o.name == found.objective)
    changes = np.array([effect.change for effect in effects])
    losses = to_losses(changes.reshape(-1, 1), [objective])[:, 0]
    bars, shared = [], common_path([effect.choice for effect in effects])
    if max(len(effect.choice) for effect in effects) <= _LONG_NAME:
        shared = ""

    def named(effect: Effect) -> str:
        return escape(effect.choice.removeprefix(shared))

    for role, name, wanted in (("front", "better", losses <= 0), ("largest", "worse", losses > 0)):
        shown = [effect for effect, is_shown in zip(effects, wanted, strict=True) if is_shown]
        if not shown:
            continue
        bar = trace(
            role,
            name,
            (effect.change for effect in shown),
            (named(effect) for effect in shown),
            orientation="h",
            error_x=interval([(e.change, e.low, e.high) for e in shown]),
            text=[f"{escape(e.before)} → {escape(e.after)}" for e in shown],
            textposition="none",
            hovertemplate=f"%{{y}}: %{{text}}<br>%{{x:+.3g}} {escape(objective.unit)}"
            "<extra></extra>",
        )
        bars.append(bar | {"type": "bar"})
    across = f"change of {escape(objective.name)}{unit_of(objective)}"
    layout = layout_of(across, "", "closest")
    layout["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": [named(effect) for effect in effects],
        "showgrid": False,
    }
    layout |= {"barmode": "overlay", "bargap": 0.35, "height": max(220, 110 + 20 * len(effects))}
    layout["xaxis"] |= {"zeroline": True}
    return {"data": bars, "layout": layout}


def score_figure(data: RunData, scores: Sequence[dict[str, Any]]) -> Figure:
    """Draw the members' scores on report samples against those on search samples."""
    search, report = ([each[split] for each in scores] for split in ("search", "report"))
    points = trace(
        "front",
        data.what,
        [s[0] for s in search],
        [r[0] for r in report],
        mode="markers",
        marker={"size": 8},
        customdata=[data.place[each["key"]] for each in scores],
        error_x=interval(search),
        error_y=interval(report),
        hovertemplate="search %{x:.4g}, report %{y:.4g}",
    )
    unit = unit_of(data.up)
    across, up = (f"on {split} {data.samples}{unit}" for split in ("search", "report"))
    layout = layout_of(across, up, hovermode="closest")
    ends = [value for each in (*search, *report) for value in each if value is not None]
    return {"data": [diagonal(ends), points], "layout": layout}


def drift_figure(anchor: Sequence[float], spread: Sequence[float | None]) -> Figure:
    """Draw the anchor's drift and the rounds' coefficient of variation per timing, in percent."""
    kept = evenly_spaced(len(anchor), MOST_POINTS)
    order = [int(row) + 1 for row in kept]
    traces = [
        trace(
            role,
            name,
            order,
            [values[row] for row in kept],
            mode="lines+markers",
            marker={"size": 4, "symbol": symbol},
            line={"width": width, "dash": dash},
        )
        for role, name, values, symbol, width, dash in (
            ("front", "anchor against its baseline", anchor, "circle", 1.5, "solid"),
            ("largest", "spread of the rounds", spread, "square", 1.2, "dot"),
        )
    ]
    return {"data": traces, "layout": layout_of("timing", "percent", hovermode="x unified")}
