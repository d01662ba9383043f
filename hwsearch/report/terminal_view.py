"""View of a run in a terminal: progress, a plot of the front, its members."""

from collections import Counter

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwsearch.report.analysis import by_cost
from hwsearch.report.run_data import RunData, finished_rows, stated
from hwsearch.report.text_plot import Layer, text_plot
from hwsearch.run.front import knee
from hwsearch.stages import one_line

_ROWS = 12  # of the table: the rest of a terminal is the plot's
_PLOT_WIDTH = 80  # where there is no terminal


def terminal_view(data: RunData, width: int | None = None, height: int = 40) -> RenderableType:
    """Show the front before every trial, and its members; without a width nothing is cut."""
    head = Text(data.run.title, style="bold", no_wrap=True, overflow="ellipsis")
    if not finished_rows(data):
        return Group(head, _progress(data), Text("nothing has been measured in full yet"))
    table = _table(data, None if width is None else min(_ROWS, max(3, height // 3)))
    rows = height - table.row_count - 8
    plot = _plot(data, width or _PLOT_WIDTH, max(rows, 8))
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


def _plot(data: RunData, width: int, rows: int) -> Text:
    across = data.across
    known = finished_rows(data)
    best = [data.place[key] for key in by_cost(data)]
    x = range(len(data.trials)) if across is None else data.values[across.name]
    y = data.values[data.up.name]
    layers = [
        Layer(name="trials", sign="·", style="dim", x=[x[n] for n in known], y=list(y[known])),
        Layer(name="best", sign="●", style="bold blue", x=[x[n] for n in best], y=list(y[best])),
    ]
    labels = ["trial" if o is None else f"{o.name} {o.unit}".strip() for o in (across, data.up)]
    limits = [c.bound for c in data.constraints if across and c.objective == across.name]
    return text_plot(layers, (labels[0], labels[1]), (width, rows), limits)


def _table(data: RunData, most: int | None) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, expand=most is not None, padding=(0, 1))
    table.add_column("key", no_wrap=True, min_width=16)
    for objective in data.objectives:
        mark = "~" if objective.name in data.predicted else ""
        title = f"{mark}{objective.name} {objective.unit}".strip()
        table.add_column(Text(title), justify="right", no_wrap=True)
    table.add_column("architecture", no_wrap=True, overflow="ellipsis", ratio=1)
    keys = by_cost(data)
    members = {}
    middle = None
    if data.members is not None:
        members = {str(row["key"]): row for row in data.members.to_dict("records")}
        middle = knee(data.members, data.objectives)
    for key in keys[:most]:
        number = data.place[key]
        values = [
            stated(members[key], o.name)[0] if members else data.values[o.name][number]
            for o in data.objectives
        ]
        table.add_row(
            Text(key, style="bold" if key == middle else ""),
            *(f"{value:.4g}" for value in values),
            Text(one_line(data.trials[number].choices)),
        )
    if most is not None and len(keys) > most:
        table.add_row(f"and {len(keys) - most} more")
    return table
