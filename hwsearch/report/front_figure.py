"""The front: trials, members with intervals, limits, comparisons; for plotly, and as a PNG."""

import io
import warnings
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwsearch.errors import unknown
from hwsearch.files import write_atomic
from hwsearch.objectives import Objective
from hwsearch.report.figures import (
    COLOURS,
    Figure,
    Trace,
    coloured,
    hover,
    interval,
    label,
    layout_of,
    trace,
)
from hwsearch.report.precisions import whole_front
from hwsearch.report.run_data import RunData, read_run_data, stated
from hwsearch.run.front import knee

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from hwsearch.run.folder import RunFolder

_FULL: Final = 0.995  # probability from which a member is drawn in its full colour


def plotted(run: "RunFolder", across: str | None = None) -> "go.Figure":
    """Return the front of a run as a plotly figure; see `Run.plot`."""
    import plotly.graph_objects as go

    data = read_run_data(run)
    others = {objective.name: objective for objective in data.objectives[1:]}
    if across is not None and across not in others:
        raise unknown("objective across", across, list(others))
    figure = front_figure(data, others[across] if across else None)
    return go.Figure(coloured(data, figure)).update_layout(title=escape(run.title))


def front_figure(data: RunData, across: Objective | None = None) -> Figure:
    """Draw the first objective against ``across``: the front before every trial.

    By default ``across`` is latency, else the second objective, else the order of the trials.
    """
    across = across or data.across
    traces = [
        _trials(data, across),
        *_compared(data, across),
        *_whole(data, across),
        *_best(data, across),
    ]
    layout = layout_of(
        label(data, across) if across else "trial", label(data, data.up), hovermode="closest"
    )
    layout["shapes"], layout["annotations"] = _limits(data, across)
    return {"data": [each for each in traces if each["x"]], "layout": layout}


def _trials(data: RunData, across: Objective | None) -> Trace:
    best = {data.place[key] for key in data.best}
    behind = [row for row in data.finished if data.kind != "unfinished" or row not in best]
    # A front that was confirmed elsewhere is measured, and the other trials still are not.
    predicted = [escape(n) for n, source in data.sources.items() if source == "predicted"]
    marks = f", {' and '.join(predicted)} predicted" if predicted else ""
    name = f"trials ({len(data.finished)}){marks}"
    return _points(data, across, behind, "trials", name, mode="markers", marker={"size": 6})


def _points(
    data: RunData,
    across: Objective | None,
    numbers: Sequence[int],
    role: str,
    name: str,
    *,
    mode: str,
    marker: dict[str, Any],
) -> Trace:
    return trace(
        role,
        name,
        numbers if across is None else data.values[across.name][numbers],
        data.values[data.up.name][numbers],
        mode=mode,
        marker={"symbol": "circle", "opacity": 0.65, **marker},
        customdata=list(numbers),
        hovertemplate=hover(data, across),
    )


def _best(data: RunData, across: Objective | None) -> list[Trace]:
    """Return the members and their knee, or the best so far of an unfinished run."""
    members, along = data.members, across or data.up
    if members is None:
        numbers = [data.place[key] for key in data.best]
        if across:
            numbers.sort(key=lambda number: data.values[across.name][number])
        name = f"best so far ({len(numbers)}), not confirmed"
        marker = {"size": 9, "symbol": "circle-open"}
        best = _points(data, across, numbers, "front", name, mode="lines+markers", marker=marker)
        return [best | {"line": {"width": 1.2, "dash": "dot"}}]
    rows = members.sort_values(along.name).to_dict("records")
    keys = [str(row["key"]) for row in rows]
    numbers = [data.place[key] for key in keys]
    up = [stated(row, data.up.name) for row in rows]
    x = (
        [stated(row, across.name) for row in rows]
        if across
        else [(n, None, None) for n in numbers]
    )
    marks = ", ".join(f"{escape(n)} predicted" for n in sorted(data.predicted))
    front = trace(
        "front",
        f"{data.what} ({len(rows)}){marks and ', '}{marks}",
        [value for value, _, _ in x],
        [value for value, _, _ in up],
        mode="lines+markers" if across and len(data.objectives) == 2 else "markers",
        marker={"size": 9, "symbol": "circle-open" if marks else "circle", "line": {"width": 2}},
        line={"width": 1.5, "dash": "dot" if marks else "solid"},
        customdata=numbers,
        error_x=interval(x),
        error_y=interval(up),
        hovertemplate=hover(data, across),
    )
    if len(data.objectives) < 2 or len(rows) < 3:
        return [front]
    at = keys.index(knee(members, data.objectives))
    marker = {"size": 17, "symbol": "circle-open", "line": {"width": 2.2}}
    ring = {"mode": "markers", "marker": marker, "hoverinfo": "skip"}
    return [front, trace("knee", "knee", [x[at][0]], [up[at][0]], **ring)]


def _compared(data: RunData, across: Objective | None) -> list[Trace]:
    """Return uniform scaling and the largest subnet, where the summary has them."""
    summary = data.summary
    if summary is None or across is None:
        return []
    uniform = sorted(summary.uniform, key=lambda values: values[across.name])
    largest = [summary.largest] if summary.largest else []
    line = "lines+markers" if len(data.objectives) == 2 else "markers"
    return [
        trace(
            role,
            name,
            [values[across.name] for values in points],
            [values[data.up.name] for values in points],
            mode=mode,
            marker={"symbol": symbol, "size": size},
            line={"width": 1.2, "dash": "dashdot"},
            hovertemplate=hover(data, across),
        )
        for role, name, points, mode, symbol, size in (
            ("uniform", f"uniform scaling ({len(uniform)})", uniform, line, "square", 8),
            ("largest", "largest subnet", largest, "markers", "star", 13),
        )
    ]


def _whole(data: RunData, across: Objective | None) -> list[Trace]:
    """Return the front of the trials of one precision throughout, where blocks may differ."""
    numbers, values = whole_front(data)
    if not numbers or across is None:
        return []
    rows = np.argsort(values[across.name], kind="stable")
    confirmed = sum(data.trials[number].key in data.members_by_key for number in numbers)
    drawn = trace(
        "second",
        f"one precision throughout ({len(numbers)}), {confirmed or 'none'} confirmed",
        values[across.name][rows],
        values[data.up.name][rows],
        mode="lines+markers" if len(data.objectives) == 2 else "markers",
        marker={"size": 7, "symbol": "diamond-open"},
        line={"width": 1, "dash": "dash"},
        customdata=[numbers[int(row)] for row in rows],
        hovertemplate=hover(data, across),
    )
    return [drawn]


def _limits(data: RunData, across: Objective | None) -> tuple[list[Any], list[Any]]:
    shapes, labels = [], []
    dashed = {"dash": "dash", "width": 1.3, "color": COLOURS["limit"]}
    for constraint in data.constraints:
        upright = across is not None and constraint.objective == across.name
        if not upright and constraint.objective != data.up.name:
            continue
        at, whole = ("x", "y") if upright else ("y", "x")
        ends = {f"{at}0": constraint.bound, f"{at}1": constraint.bound, f"{whole}0": 0}
        paper = {f"{whole}ref": "paper"}
        shapes.append({"type": "line", "line": dashed, **ends, f"{whole}1": 1, **paper})
        text: dict[str, Any] = {
            at: constraint.bound,
            whole: 1 if upright else 0,
            "text": escape(str(constraint)),
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "top" if upright else "bottom",
            "xshift": 4,
        }
        labels.append(text | paper)
    return shapes, labels


def draw_front(path: Path, data: RunData) -> None:
    """Write a PNG of the first objective against the second, or against the trials' order."""
    # Imported here: they load slowly, and a search must not depend on a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    figure = front_figure(data, data.objectives[1] if len(data.objectives) > 1 else None)
    picture = Picture(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    _draw_traces(axes, data, {each["meta"]: each for each in figure["data"]})
    axes.set_xlabel(unescape(figure["layout"]["xaxis"]["title"]["text"]), parse_math=False)
    axes.set_ylabel(unescape(figure["layout"]["yaxis"]["title"]["text"]), parse_math=False)
    axes.set_title(data.run.title, fontsize=10, loc="left", parse_math=False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for the character
        picture.savefig(drawn, format="png")
    write_atomic(path, drawn.getvalue())


def _draw_traces(axes: Any, data: RunData, traces: dict[str, Trace]) -> None:
    from matplotlib.colors import to_rgba

    assert data.members is not None
    if known := traces.get("trials"):
        grey = {"s": 16, "color": COLOURS["trials"], "alpha": 0.7, "linewidths": 0}
        axes.scatter(known["x"], known["y"], label=unescape(known["name"]), **grey)
    if known := traces.get("second"):
        thin = {"color": COLOURS["second"], "linewidth": 0.9, "linestyle": "--", "zorder": 2.5}
        thin |= {"marker": "D", "markersize": 4, "markerfacecolor": "white"}
        axes.plot(known["x"], known["y"], label=unescape(known["name"]), **thin)
    front, blue = traces["front"], COLOURS["front"]
    rows = data.members.set_index("key").loc[[data.trials[n].key for n in front["customdata"]]]
    probability = rows["probability"] if "probability" in rows else [1.0] * len(rows)
    paler = ", paler where less sure" if min(probability) < _FULL else ""
    bars = {
        f"{at}err": [front[f"error_{at}"][side] for side in ("arrayminus", "array")]
        for at in ("x", "y")
        if "array" in front[f"error_{at}"]
    }
    joined = "-" if "lines" in front["mode"] else "none"  # with more objectives, it would zigzag
    line = {"color": blue, "linewidth": 1.2, "elinewidth": 0.8, "capsize": 2, "zorder": 3}
    line["linestyle"] = joined
    marker = {"marker": "o", "markersize": 5, "markerfacecolor": "white"}
    label = f"{data.what} ({len(rows)}), 95% intervals{paler}"
    axes.errorbar(front["x"], front["y"], **bars, **line, **marker, label=label)
    shades = [to_rgba(blue, alpha=float(share)) for share in probability]
    axes.scatter(front["x"], front["y"], s=25, color=shades, linewidths=0, zorder=3.5)
    hollow = {"facecolors": "none", "zorder": 4}
    if best := traces.get("knee"):
        ring = {"s": 110, "edgecolors": COLOURS["knee"], "linewidths": 1.6}
        axes.scatter(best["x"], best["y"], label="knee", **ring, **hollow)
    report = f"{data.up.name}_report"
    if report in rows and len(data.objectives) > 1:
        label = f"{data.what} on the report samples"
        diamond = {"s": 26, "marker": "D", "edgecolors": blue, "linewidths": 0.9}
        axes.scatter(front["x"], rows[report], label=label, **diamond, **hollow)
