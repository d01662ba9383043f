"""The front as a PNG: every trial, the confirmed front with its intervals, the knee.

Candidates are drawn the same way; what is predicted of them says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsearch.objectives import Objective
from hwsearch.report.canvas import axis_label, make_plain, new_figure, save_figure
from hwsearch.run.front import knee

if TYPE_CHECKING:
    import pandas as pd

GREY, BLUE, RED = "#9aa3ad", "#1f5fbf", "#c8452f"
_SURE = 0.995  # what is drawn as paler below


def draw_front(
    path: Path,
    trials: "pd.DataFrame",
    front: "pd.DataFrame",
    objectives: Sequence[Objective],
    title: str = "",
) -> None:
    """Draw the first objective against the second one, or the trials' order where there is one.

    Args:
        path: The PNG to write.
        trials: One row per trial, a column for each measured objective.
        front: One row per member, with ``NAME``, ``NAME_low`` and ``NAME_high``.
        objectives: Of the run.
        title: What was searched, and for which device.
    """
    across, up = (objectives[1], objectives[0]) if len(objectives) > 1 else (None, objectives[0])
    figure = new_figure(7.2, 4.6)
    axes = figure.add_subplot()
    # A front that was confirmed elsewhere is measured, and the other trials still are not.
    predicted = ", ".join(f"{o.name} predicted" for o in objectives if o.source == "predicted")
    done = trials[trials["state"] == "done"]
    if up.name in done and (across is None or across.name in done):
        axes.scatter(
            done["number"] if across is None else done[across.name],
            done[up.name],
            s=16,
            color=GREY,
            alpha=0.7,
            linewidths=0,
            label=f"trials ({len(done)}){predicted and ', '}{predicted}",
        )
    _draw_members(axes, front, across, up)
    if len(objectives) > 1 and len(front) > 2:
        best = front[front["key"] == knee(front, objectives)]
        axes.scatter(
            best[across.name] if across else [0],
            best[up.name],
            s=110,
            facecolors="none",
            edgecolors=RED,
            linewidths=1.6,
            zorder=4,
            label="knee",
        )
    if f"{up.name}_report" in front and across is not None:
        axes.scatter(
            front[across.name],
            front[f"{up.name}_report"],
            s=26,
            marker="D",
            facecolors="none",
            edgecolors=BLUE,
            linewidths=0.9,
            zorder=3,
            label=f"{_what(front)} on the report samples",
        )
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("trial" if across is None else _label(across, front))
    axes.set_ylabel(_label(up, front))
    make_plain(axes)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def _draw_members(
    axes: Any, front: "pd.DataFrame", across: Objective | None, up: Objective
) -> None:
    from matplotlib.colors import to_rgba

    x = np.arange(len(front)) if across is None else front[across.name].to_numpy(float)
    order = np.argsort(x)
    surely = front.get("probability", np.ones(len(front)))
    paler = ", paler where less sure" if min(surely) < _SURE else ""
    axes.errorbar(
        x[order],
        front[up.name].to_numpy(float)[order],
        xerr=None if across is None else _interval(front, across.name, order),
        yerr=_interval(front, up.name, order),
        color=BLUE,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
        marker="o",
        markersize=5,
        markerfacecolor="white",
        label=f"{_what(front)} ({len(front)}), 95% intervals{paler}",
    )
    shades = [to_rgba(BLUE, alpha=float(share)) for share in surely]
    axes.scatter(x, front[up.name], s=25, color=shades, linewidths=0, zorder=3.5)


def _what(front: "pd.DataFrame") -> str:
    """Name the members: a front is measured throughout."""
    predicted = any(str(column).endswith("_source") for column in front)
    return "candidates" if predicted else "front"


def _interval(front: "pd.DataFrame", name: str, order: Any) -> Any:
    if f"{name}_low" not in front:
        return None
    value = front[name].to_numpy(float)
    low, high = front[f"{name}_low"].to_numpy(float), front[f"{name}_high"].to_numpy(float)
    return np.maximum(np.vstack([value - low, high - value]), 0.0)[:, order]


def _label(objective: Objective, front: "pd.DataFrame") -> str:
    return axis_label(objective, f"{objective.name}_source" in front)
