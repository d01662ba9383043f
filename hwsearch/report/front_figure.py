"""The front as a plotly figure: trials, members with intervals, limits, comparisons."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hwsearch.errors import unknown
from hwsearch.objectives import Objective
from hwsearch.report.plotly_figures import (
    COLOURS,
    Figure,
    Trace,
    coloured,
    hover,
    interval,
    label,
    layout_of,
    trace,
    with_texts,
)
from hwsearch.report.run_data import RunData, finished_rows, read_run_data, stated
from hwsearch.run.front import knee

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from hwsearch.run.folder import RunFolder


def plotted(run: "RunFolder", across: str | None = None) -> "go.Figure":
    """Return the front of a run as a plotly figure; see `Run.plot`."""
    import plotly.graph_objects as go

    data = read_run_data(run)
    others = {objective.name: objective for objective in data.objectives[1:]}
    if across is not None and across not in others:
        raise unknown("objective across", across, list(others))
    figure = front_figure(data, others[across] if across else None)
    return go.Figure(coloured(with_texts(data, figure))).update_layout(title=escape(run.title))


def front_figure(data: RunData, across: Objective | None = None) -> Figure:
    """Draw the first objective against ``across``: the front before every trial.

    By default ``across`` is latency, else the second objective, else the order of the trials.
    """
    across = across or data.across
    traces = [*_trial_traces(data, across), *_compared_traces(data, across)]
    if data.members is not None:
        traces += _member_traces(data, across)
    else:
        traces.append(_so_far(data, across))
    layout = layout_of(
        label(data, across) if across else "trial",
        label(data, data.up),
        hovermode="closest",
    )
    layout["shapes"], layout["annotations"] = _limits(data, across)
    return {"data": [each for each in traces if each["x"]], "layout": layout}


def _trial_traces(data: RunData, across: Objective | None) -> list[Trace]:
    rows = finished_rows(data)
    best = {data.place[key] for key in data.best}
    behind = [row for row in rows if data.kind != "unfinished" or row not in best]
    known = f"trials ({len(rows)})"
    predicted = [n for n, source in data.sources.items() if source == "predicted"]
    if predicted:
        known += f", {' and '.join(map(escape, predicted))} predicted"
    return [_points(data, across, behind, known, "trials", "circle", 6)]


def _points(
    data: RunData,
    across: Objective | None,
    rows: Sequence[int],
    name: str,
    role: str,
    symbol: str,
    size: float,
) -> Trace:
    x = rows if across is None else data.values[across.name][rows]
    return trace(role, name, x, data.values[data.up.name][rows]) | {
        "mode": "markers",
        "marker": {"size": size, "symbol": symbol, "opacity": 0.65},
        "customdata": list(rows),
        "hovertemplate": hover(data, across),
    }


def _member_traces(data: RunData, across: Objective | None) -> list[Trace]:
    members = data.members
    assert members is not None
    along = across or data.up
    rows = members.sort_values(along.name).to_dict("records")
    numbers = [data.place[str(row["key"])] for row in rows]
    up = [stated(row, data.up.name) for row in rows]
    x = [float(row[across.name]) for row in rows] if across else numbers
    line = across is not None and len(data.objectives) == 2
    marks = ", ".join(f"{escape(n)} predicted" for n in sorted(data.predicted))
    name = f"{data.what} ({len(rows)})" + (f", {marks}" if marks else "")
    front = trace("front", name, x, [value for value, _, _ in up]) | {
        "mode": "lines+markers" if line else "markers",
        "marker": {
            "size": 9,
            "symbol": "circle-open" if marks else "circle",
            "line": {"width": 2},
        },
        "line": {"width": 1.5, "dash": "dot" if marks else "solid"},
        "customdata": numbers,
        "error_y": interval(up),
        "hovertemplate": hover(data, across),
    }
    if across:
        front["error_x"] = interval([stated(row, across.name) for row in rows])
    found = [front]
    if len(data.objectives) > 1 and len(rows) > 2:
        at = [str(row["key"]) for row in rows].index(knee(members, data.objectives))
        found.append(
            trace("knee", "knee", [x[at]], [up[at][0]])
            | {
                "mode": "markers",
                "marker": {"size": 17, "symbol": "circle-open", "line": {"width": 2.2}},
                "hoverinfo": "skip",
            }
        )
    return found


def _so_far(data: RunData, across: Objective | None) -> Trace:
    numbers = [data.place[key] for key in data.best]
    if across:
        numbers.sort(key=lambda number: data.values[across.name][number])
    found = _points(
        data,
        across,
        numbers,
        f"best so far ({len(numbers)}), not confirmed",
        "front",
        "circle-open",
        9,
    )
    return found | {"mode": "lines+markers", "line": {"width": 1.2, "dash": "dot"}}


def _compared_traces(data: RunData, across: Objective | None) -> list[Trace]:
    summary = data.summary
    if summary is None or across is None:
        return []
    best = [dict(values) for values in summary.uniform]
    found = []
    for role, name, points, symbol, mode, size in (
        ("uniform", f"uniform scaling ({len(best)})", best, "square", "lines+markers", 8),
        (
            "largest",
            "largest subnet",
            [summary.largest] if summary.largest else [],
            "star",
            "markers",
            13,
        ),
    ):
        points = sorted(points, key=lambda values: values[across.name])
        found.append(
            trace(role, name, [p[across.name] for p in points], [p[data.up.name] for p in points])
            | {
                "mode": mode if len(data.objectives) == 2 else "markers",
                "marker": {"size": size, "symbol": symbol},
                "line": {"width": 1.2, "dash": "dashdot"},
                "hovertemplate": hover(data, across),
            }
        )
    return found


def _limits(data: RunData, across: Objective | None) -> tuple[list[Any], list[Any]]:
    shapes, labels = [], []
    for constraint in data.constraints:
        upright = across is not None and constraint.objective == across.name
        if not upright and constraint.objective != data.up.name:
            continue
        at, whole = ("x", "y") if upright else ("y", "x")
        bound = {f"{at}0": constraint.bound, f"{at}1": constraint.bound}
        rest = {f"{whole}0": 0, f"{whole}1": 1, f"{whole}ref": "paper"}
        shapes.append(
            {
                "type": "line",
                **bound,
                **rest,
                "line": {"dash": "dash", "width": 1.3, "color": COLOURS["limit"]},
            }
        )
        labels.append(
            {
                at: constraint.bound,
                whole: 1 if upright else 0,
                f"{whole}ref": "paper",
                "text": escape(str(constraint)),
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "top" if upright else "bottom",
                "xshift": 4,
            }
        )
    return shapes, labels
