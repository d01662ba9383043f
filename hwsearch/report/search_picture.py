"""The summary of a search as a PNG: progress, comparisons, and how good predictions were."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwsearch.objectives import Objective
from hwsearch.report.canvas import axis_label, make_plain, new_figure, save_figure
from hwsearch.run.search_summary import HORIZON, Point, SearchSummary

if TYPE_CHECKING:
    import pandas as pd

# Distinct to every kind of colour vision (Okabe and Ito, 2008), and in line and marker besides.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b7480"
_OBJECTIVES: Final = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
)


def draw_search(
    path: Path,
    summary: SearchSummary,
    front: "pd.DataFrame",
    objectives: Sequence[Objective],
    title: str = "",
) -> None:
    """Draw hypervolume over evaluations, the front beside others, and predictions by round.

    Args:
        path: The PNG to write.
        summary: Of the search.
        front: One row per member, a column for each objective.
        objectives: Of the run.
        title: What was searched, and for which device.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = new_figure(10.4, 7.4, layout)
    axes = figure.subplots(2, 2)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    _draw_progress(axes[0, 0], summary)
    _draw_comparison(axes[0, 1], summary, front, objectives)
    _draw_fits(axes[1, 0], summary, "tau")
    _draw_fits(axes[1, 1], summary, "covered")
    for each in axes.flat:
        make_plain(each)
    save_figure(figure, path)


def _draw_progress(axes: Any, summary: SearchSummary) -> None:
    reached = summary.hypervolumes[-1]
    axes.step(
        np.arange(1, summary.evaluated + 1),
        summary.hypervolumes,
        where="post",
        color=BLUE,
        linewidth=1.8,
        label=f"this search: {reached:.4g}",
    )
    if summary.gain is not None:
        axes.plot(
            [summary.evaluated, summary.evaluated + HORIZON],
            [reached, reached + summary.gain],
            color=BLUE,
            linewidth=1.4,
            linestyle=(0, (1, 1.5)),
            label=f"{HORIZON} more: +{summary.gain:.2g}, predicted",
        )
    for name, value, colour, style in (
        ("as many drawn by chance, predicted", summary.random, ORANGE, "--"),
        ("uniform scaling", summary.uniform_hypervolume, GREEN, "-."),
    ):
        if value is not None:
            label = f"{name}: {value:.4g}"
            axes.axhline(value, color=colour, linestyle=style, linewidth=1.3, label=label)
    axes.set_title("Hypervolume of what was found", fontsize=10, loc="left")
    axes.set_xlabel("evaluations")
    units = " x ".join(unit or name for name, unit in summary.objectives.items())
    axes.set_ylabel(f"hypervolume ({units})")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="best", fontsize=8.5)


def _draw_comparison(
    axes: Any, summary: SearchSummary, front: "pd.DataFrame", objectives: Sequence[Objective]
) -> None:
    members: list[Point] = front[[o.name for o in objectives]].to_dict("records")
    up, across = objectives[0], objectives[1] if len(objectives) > 1 else None
    kinds = [
        (f"front ({len(members)})", members, BLUE, "o", "-", 28),
        (f"uniform scaling ({len(summary.uniform)})", summary.uniform, GREEN, "s", "-.", 26),
        ("largest", [summary.largest] if summary.largest else [], ORANGE, "*", "", 130),
    ]
    for place, (name, points, colour, marker, style, size) in enumerate(kinds):
        if not points:
            continue
        x = np.array([place if across is None else point[across.name] for point in points])
        y, order = np.array([point[up.name] for point in points]), np.argsort(x)
        line = (across is not None and len(objectives) == 2 and style) or ""
        axes.plot(x[order], y[order], color=colour, linestyle=line, linewidth=1.1)
        axes.scatter(x, y, s=size, color=colour, marker=marker, zorder=3, label=name)
    axes.set_title("The front, and every choice scaled alike", fontsize=10, loc="left")
    if across is None:
        axes.set_xticks([])
    else:
        axes.set_xlabel(_label(across, summary))
    axes.set_ylabel(_label(up, summary))
    axes.legend(frameon=False, loc="best", fontsize=8.5)


def _draw_fits(axes: Any, summary: SearchSummary, figure: str) -> None:
    measured = dict.fromkeys(fit.objective for fit in summary.fits)
    for name, (colour, marker, style) in zip(measured, _OBJECTIVES, strict=False):
        fits = [fit for fit in summary.fits if fit.objective == name]
        known = [(fit.evaluated, getattr(fit, figure)) for fit in fits]
        known = [(evaluated, value) for evaluated, value in known if value is not None]
        if known:
            x, y = np.array(known, dtype=float).T
            axes.plot(
                x,
                100 * y if figure == "covered" else y,
                color=colour,
                marker=marker,
                linestyle=style,
                markersize=4,
                linewidth=1.2,
                label=name,
            )
    axes.set_xlabel("evaluations")
    axes.set_xlim(0, summary.evaluated + 1)
    if figure == "covered":
        axes.axhline(95, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.set_title("Predicted against measured: 95% intervals", fontsize=10, loc="left")
        axes.set_ylabel("measured values inside (%, last 16)")
        axes.set_ylim(0, 104)
    else:
        axes.set_title("Predicted against measured: ranking", fontsize=10, loc="left")
        axes.set_ylabel("Kendall's tau (last 16)")
        axes.set_ylim(min([0.0, *(fit.tau for fit in summary.fits if fit.tau is not None)]), 1.04)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best", fontsize=8.5)
    elif not measured:
        middle = {"transform": axes.transAxes, "ha": "center", "color": GREY}
        axes.text(0.5, 0.5, "nothing was predicted before it was measured", **middle)


def _label(objective: Objective, summary: SearchSummary) -> str:
    return axis_label(objective, objective.name in summary.predicted)
