"""Plots of the page besides the front, as plotly figures."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.intervals import Z95
from hwsearch.objectives import Objective
from hwsearch.prediction.bayesian_regression import evenly_spaced
from hwsearch.report.importance import Effect, Importance
from hwsearch.report.plotly_figures import (
    Figure,
    Trace,
    diagonal,
    error_bars,
    interval,
    layout_of,
    trace,
    unit_of,
)
from hwsearch.report.run_data import RunData
from hwsearch.run.search_summary import HORIZON, SearchSummary

MOST_POINTS: Final = 500  # of plots in which more would cover each other, and slow the page


def progress_figure(summary: SearchSummary) -> Figure:
    """Draw hypervolume over evaluations, beside uniform scaling and random sets."""
    reached = summary.hypervolumes[-1]
    steps = trace("front", "this search", range(1, summary.evaluated + 1), summary.hypervolumes)
    traces = [steps | {"mode": "lines", "line": {"shape": "hv", "width": 2.5}}]
    end = summary.evaluated
    if summary.gain is not None:
        ahead = trace(
            "front",
            f"{HORIZON} more, predicted",
            [end, end + HORIZON],
            [reached, reached + summary.gain],
        )
        traces.append(ahead | {"mode": "lines", "line": {"dash": "dot", "width": 2}})
        end += HORIZON
    for role, name, value, dash in (
        ("random", "drawn by chance, predicted", summary.random, "dash"),
        ("uniform", "uniform scaling", summary.uniform_hypervolume, "dashdot"),
    ):
        if value is not None:
            line = trace(role, name, [1, end], [value, value])
            traces.append(line | {"mode": "lines", "line": {"dash": dash, "width": 2}})
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
    name = "trials" if len(kept) == len(rows) else f"{len(kept)} of {len(rows)} trials"
    points = trace("front", name, means, measured) | {
        "mode": "markers",
        "marker": {"size": 7, "opacity": 0.8},
        "customdata": list(numbers),
        "error_x": error_bars(np.multiply(deviations, Z95)),
        "hovertemplate": f"predicted %{{x:.4g}}, measured %{{y:.4g}} {escape(objective.unit)}",
    }
    unit = unit_of(objective)
    name = escape(objective.name)
    layout = layout_of(f"{name}, predicted{unit}", f"{name}, measured{unit}", hovermode="closest")
    return {"data": [diagonal([*means, *measured]), points], "layout": layout}


def importance_figure(data: RunData, found: Importance) -> Figure:
    """Draw the effect of each choice, the largest on top."""
    effects = sorted(found.effects, key=lambda effect: abs(effect.change))
    objective = next(o for o in data.objectives if o.name == found.objective)
    sign = 1.0 if objective.direction == "max" else -1.0
    better = [effect for effect in effects if sign * effect.change >= 0]
    worse = [effect for effect in effects if sign * effect.change < 0]
    bars = [
        _bars(each, role, name, objective.unit)
        for each, role, name in ((better, "front", "better"), (worse, "largest", "worse"))
        if each
    ]
    unit = unit_of(objective)
    layout = layout_of(f"change of {escape(objective.name)}{unit}", "", "closest")
    layout["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": [escape(effect.choice) for effect in effects],
        "showgrid": False,
    }
    layout |= {"barmode": "overlay", "bargap": 0.35, "height": max(220, 110 + 20 * len(effects))}
    layout["xaxis"] |= {"zeroline": True}
    return {"data": bars, "layout": layout}


def score_figure(data: RunData, scores: Sequence[dict[str, Any]]) -> Figure:
    """Draw the members' scores on report images against those on search images."""
    search, report = ([each[split] for each in scores] for split in ("search", "report"))
    points = trace("front", data.what, [s[0] for s in search], [r[0] for r in report]) | {
        "mode": "markers",
        "marker": {"size": 8},
        "customdata": [data.place[each["key"]] for each in scores],
        "error_x": interval(search),
        "error_y": interval(report),
        "hovertemplate": "search %{x:.4g}, report %{y:.4g}",
    }
    unit = unit_of(data.up)
    layout = layout_of(f"on search images{unit}", f"on report images{unit}", hovermode="closest")
    ends = [value for each in (*search, *report) for value in each if value is not None]
    return {"data": [diagonal(ends), points], "layout": layout}


def drift_figure(anchor: Sequence[float], spread: Sequence[float | None]) -> Figure:
    """Draw the anchor's drift and the rounds' coefficient of variation per timing, in percent."""
    kept = evenly_spaced(len(anchor), MOST_POINTS)
    order = [int(row) + 1 for row in kept]
    anchor, spread = ([values[row] for row in kept] for values in (anchor, spread))
    traces = [
        trace("front", "anchor against its baseline", order, anchor)
        | {"mode": "lines+markers", "marker": {"size": 4}, "line": {"width": 1.5}},
        trace("largest", "spread of the rounds", order, spread)
        | {
            "mode": "lines+markers",
            "marker": {"size": 4, "symbol": "square"},
            "line": {"width": 1.2, "dash": "dot"},
        },
    ]
    return {"data": traces, "layout": layout_of("timing", "percent", hovermode="x unified")}


def _bars(effects: Sequence[Effect], role: str, name: str, unit: str) -> Trace:
    bars = trace(role, name, (e.change for e in effects), (escape(e.choice) for e in effects))
    return bars | {
        "type": "bar",
        "orientation": "h",
        "error_x": interval([(e.change, e.low, e.high) for e in effects]),
        "text": [f"{escape(e.before)} → {escape(e.after)}" for e in effects],
        "textposition": "none",
        "hovertemplate": f"%{{y}}: %{{text}}<br>%{{x:+.3g}} {escape(unit)}<extra></extra>",
    }
