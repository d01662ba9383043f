"""The front as a PNG: trials, members with their intervals, the knee."""

import io
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsearch.files import write_atomic
from hwsearch.objectives import Objective
from hwsearch.report.plotly_figures import COLOURS, axis_label
from hwsearch.report.run_data import RunData, finished_rows
from hwsearch.run.front import knee

_FULL: Final = 0.995  # probability from which a member is drawn in its full colour


def draw_front(path: Path, data: RunData) -> None:
    """Write a PNG of the first objective against the second, or against the trials' order."""
    # Imported here: they load slowly, and a search must not depend on a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    up, *others = data.objectives
    across = others[0] if others else None
    _draw_trials(axes, data, up, across)
    _draw_members(axes, data, up, across)
    axes.set_title(data.run.title, fontsize=10, loc="left", parse_math=False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for the character
        figure.savefig(drawn, format="png")
    write_atomic(path, drawn.getvalue())


def _draw_trials(axes: Any, data: RunData, up: Objective, across: Objective | None) -> None:
    rows = finished_rows(data)
    # A front that was confirmed elsewhere is measured, and the other trials still are not.
    predicted = ", ".join(f"{n} predicted" for n, s in data.sources.items() if s == "predicted")
    axes.scatter(
        rows if across is None else data.values[across.name][rows],
        data.values[up.name][rows],
        s=16,
        color=COLOURS["trials"],
        alpha=0.7,
        linewidths=0,
        label=f"trials ({len(rows)}){predicted and ', '}{predicted}",
    )
    axes.set_xlabel("trial" if across is None else axis_label(data, across), parse_math=False)
    axes.set_ylabel(axis_label(data, up), parse_math=False)


def _draw_members(axes: Any, data: RunData, up: Objective, across: Objective | None) -> None:
    from matplotlib.colors import to_rgba

    front = data.members
    assert front is not None
    x = np.arange(len(front)) if across is None else front[across.name].to_numpy(float)
    y, order, blue = front[up.name].to_numpy(float), np.argsort(x), COLOURS["front"]
    probability = front.get("probability", np.ones(len(front)))
    paler = ", paler where less sure" if min(probability) < _FULL else ""
    axes.errorbar(
        x[order],
        y[order],
        xerr=None if across is None else _interval(front, across.name, order),
        yerr=_interval(front, up.name, order),
        color=blue,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
        marker="o",
        markersize=5,
        markerfacecolor="white",
        label=f"{data.what} ({len(front)}), 95% intervals{paler}",
    )
    shades = [to_rgba(blue, alpha=float(share)) for share in probability]
    axes.scatter(x, y, s=25, color=shades, linewidths=0, zorder=3.5)
    if len(data.objectives) > 1 and len(front) > 2:
        best = (front["key"] == knee(front, data.objectives)).to_numpy()
        ring = {"facecolors": "none", "edgecolors": COLOURS["knee"], "linewidths": 1.6}
        axes.scatter(x[best], y[best], s=110, zorder=4, label="knee", **ring)
    if f"{up.name}_report" in front and across is not None:
        axes.scatter(
            x,
            front[f"{up.name}_report"],
            s=26,
            marker="D",
            facecolors="none",
            edgecolors=blue,
            linewidths=0.9,
            zorder=3,
            label=f"{data.what} on the report samples",
        )


def _interval(front: Any, name: str, order: Any) -> Any:
    """Return (2, n) distances to the ends of the intervals; None without intervals."""
    if f"{name}_low" not in front:
        return None
    value, low, high = (
        front[column].to_numpy(float) for column in (name, f"{name}_low", f"{name}_high")
    )
    return np.maximum(np.vstack([value - low, high - value]), 0.0)[:, order]
