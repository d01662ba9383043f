"""View of a run in a terminal: progress, a plot of the front as text, its members."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwsearch.architectures import one_line
from hwsearch.objectives import FloatArray, Objective
from hwsearch.report.analysis import by_cost
from hwsearch.report.run_data import RunData
from hwsearch.run.front import knee

_ROWS = 12  # of the table: the rest of a terminal is the plot's
_PLOT_WIDTH = 80  # where there is no terminal
_MARGIN = 0.04  # of the range, so that no dot sits on an axis
_LABEL = 9  # columns for the numbers of the upright axis


def terminal_view(data: RunData, width: int | None = None, height: int = 40) -> RenderableType:
    """Show the front before every trial, and its members; without a width nothing is cut."""
    head = Text(data.run.title, style="bold", no_wrap=True, overflow="ellipsis")
    if not data.finished:
        return Group(head, _progress(data), Text("nothing has been measured in full yet"))
    table = _table(data, None if width is None else min(_ROWS, max(3, height // 3)))
    rows = height - table.row_count - 8
    plot = _plot(data, (width or _PLOT_WIDTH, max(rows, 8)))
    return Group(head, _progress(data), plot, table)


def _progress(data: RunData) -> Text:
    states = Counter(str(trial.state) for trial in data.trials)
    told = ", ".join(f"{n} {state}" for state, n in states.items() if state != "done")
    done = sum(states.values()) - states["proposed"] - states["running"]
    predicted = " and ".join(sorted(data.predicted))
    what = {
        "front": f"front of {len(data.best)}, confirmed",
        "candidates": f"{len(data.best)} candidates, {predicted} predicted",
        "unfinished": f"{len(data.best)} best so far, not confirmed",
    }[data.kind]
    return Text(f"{done} of {data.run.config.budget} evaluated{told and ', '}{told}; {what}")


def _plot(data: RunData, size: tuple[int, int]) -> Text:
    across = data.across
    x = np.arange(len(data.trials), dtype=float) if across is None else data.values[across.name]
    y = data.values[data.up.name]
    best = [data.place[key] for key in by_cost(data)]
    layers = [
        Layer(sign=sign, style=style, x=x[numbers], y=y[numbers])
        for sign, style, numbers in (("·", "dim", data.finished), ("●", "bold blue", best))
    ]
    labels = "trial" if across is None else _titled(across), _titled(data.up)
    limits = [c.bound for c in data.constraints if across and c.objective == across.name]
    return text_plot(layers, labels, size, limits)


def _titled(objective: Objective) -> str:
    return f"{objective.name} {objective.unit}".strip()


def _table(data: RunData, most: int | None) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, expand=most is not None, padding=(0, 1))
    table.add_column("key", no_wrap=True, min_width=16)
    for objective in data.objectives:
        mark = "~" if objective.name in data.predicted else ""
        table.add_column(Text(mark + _titled(objective)), justify="right", no_wrap=True)
    table.add_column("architecture", no_wrap=True, overflow="ellipsis", ratio=1)
    keys = by_cost(data)
    middle = None if data.members is None else knee(data.members, data.objectives)
    for key in keys[:most]:
        number = data.place[key]
        values = data.members_by_key.get(key) or {n: v[number] for n, v in data.values.items()}
        table.add_row(
            Text(key, style="bold" if key == middle else ""),
            *(f"{values[o.name]:.4g}" for o in data.objectives),
            Text(one_line(data.trials[number].choices)),
        )
    if most is not None and len(keys) > most:
        table.add_row(f"and {len(keys) - most} more")
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Dots of one kind, (n,) each; later layers cover earlier ones. ``style`` is rich's."""

    sign: str
    style: str
    x: Sequence[float] | FloatArray
    y: Sequence[float] | FloatArray


def text_plot(
    layers: Sequence[Layer],
    labels: tuple[str, str],
    size: tuple[int, int],
    upright: Sequence[float] = (),
) -> Text:
    """Draw layers of dots, from the back to the front; at least one dot in all.

    ``labels`` are those of the axes (across, up), ``size`` is columns and rows, labels included,
    ``upright`` the positions of vertical lines, such as a limit of the latency.
    """
    width, height = max(size[0] - _LABEL - 2, 10), max(size[1] - 3, 3)
    left, right = _range(np.concatenate([*(layer.x for layer in layers), upright]))
    bottom, top = _range(np.concatenate([layer.y for layer in layers]))
    signs = [[Text(" ")] * width for _ in range(height)]
    for bound in upright:
        for row in signs:
            row[_cell(bound, left, right, width)] = Text("┊", "yellow")
    for layer in layers:
        for across, up in zip(layer.x, layer.y, strict=True):
            row = signs[height - 1 - _cell(up, bottom, top, height)]
            row[_cell(across, left, right, width)] = Text(layer.sign, layer.style)
    found = Text(f"{labels[1]}\n")
    ends = {0: f"{top:.4g}", height - 1: f"{bottom:.4g}"}
    for number, row in enumerate(signs):
        found.append(f"{ends.get(number, ''):>{_LABEL}} │", style="dim")
        found.append(Text().join(row)).append("\n")
    first, last = f"{left:.4g}", f"{right:.4g}"
    middle = labels[0].center(max(width - len(first) - len(last), len(labels[0]) + 1))
    found.append(f"{'':>{_LABEL}} └{'─' * width}\n{'':>{_LABEL + 2}}", style="dim")
    found.append(f"{first}{middle[: max(0, width - len(first) - len(last))]}{last}")
    return found


def _range(values: FloatArray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    gap = _MARGIN * (high - low) or abs(high) * _MARGIN or 1.0
    return low - gap, high + gap


def _cell(value: float, low: float, high: float, n: int) -> int:
    return int(np.clip((value - low) / (high - low) * n, 0, n - 1))
