"""What a run looks like in a terminal while it goes on."""

from collections import Counter

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwsearch.report.facts import Facts, finished_rows, stated
from hwsearch.report.findings import by_cost
from hwsearch.report.text_plot import Layer, text_plot
from hwsearch.run.front import knee
from hwsearch.stages import one_line

_ROWS = 12  # of the table: the rest of a terminal is the plot's
_PLOT_WIDTH = 80  # where there is no terminal


def live_view(facts: Facts, width: int | None = None, height: int = 40) -> RenderableType:
    """Show the front before every trial, and its members.

    Args:
        facts: Of a run, finished or not.
        width: Columns of the terminal; None where there is none, so that nothing is cut.
        height: Rows of the terminal.
    """
    head = Text(facts.run.title, style="bold", no_wrap=True, overflow="ellipsis")
    if not finished_rows(facts):
        return Group(head, _progress(facts), Text("nothing has been measured in full yet"))
    table = _table(facts, None if width is None else min(_ROWS, max(3, height // 3)))
    rows = height - table.row_count - 8
    plot = _plot(facts, width or _PLOT_WIDTH, max(rows, 8))
    return Group(head, _progress(facts), plot, table)


def _progress(facts: Facts) -> Text:
    states = Counter(str(trial.state) for trial in facts.trials)
    told = ", ".join(f"{n} {state}" for state, n in states.items() if state != "done")
    done = sum(states.values()) - states["proposed"] - states["running"]
    predicted = " and ".join(sorted(facts.predicted))
    what = {
        "front": f"front of {len(facts.best)}, confirmed",
        "candidates": f"{len(facts.best)} candidates, {predicted} predicted",
        "unfinished": f"{len(facts.best)} best so far, not confirmed",
    }[facts.kind]
    return Text(f"{done} of {facts.run.config.budget} evaluated{told and ', '}{told}; {what}")


def _plot(facts: Facts, width: int, rows: int) -> Text:
    across = facts.across
    known = finished_rows(facts)
    best = [facts.place[key] for key in by_cost(facts)]
    x = range(len(facts.trials)) if across is None else facts.values[across.name]
    y = facts.values[facts.up.name]
    layers = [
        Layer(name="trials", sign="·", style="dim", x=[x[n] for n in known], y=list(y[known])),
        Layer(name="best", sign="●", style="bold blue", x=[x[n] for n in best], y=list(y[best])),
    ]
    labels = ["trial" if o is None else f"{o.name} {o.unit}".strip() for o in (across, facts.up)]
    limits = [c.bound for c in facts.constraints if across and c.objective == across.name]
    return text_plot(layers, (labels[0], labels[1]), (width, rows), limits)


def _table(facts: Facts, most: int | None) -> Table:
    """Lay out at most so many members, in the width of the terminal; None lays out all of them."""
    table = Table(box=box.SIMPLE, pad_edge=False, expand=most is not None, padding=(0, 1))
    table.add_column("key", no_wrap=True, min_width=16)
    for objective in facts.objectives:
        mark = "~" if objective.name in facts.predicted else ""
        title = f"{mark}{objective.name} {objective.unit}".strip()
        table.add_column(Text(title), justify="right", no_wrap=True)
    table.add_column("architecture", no_wrap=True, overflow="ellipsis", ratio=1)
    keys = by_cost(facts)
    members = {}
    middle = None
    if facts.members is not None:
        members = {str(row["key"]): row for row in facts.members.to_dict("records")}
        middle = knee(facts.members, facts.objectives)
    for key in keys[:most]:
        number = facts.place[key]
        values = [
            stated(members[key], o.name)[0] if members else facts.values[o.name][number]
            for o in facts.objectives
        ]
        table.add_row(
            Text(key, style="bold" if key == middle else ""),
            *(f"{value:.4g}" for value in values),
            Text(one_line(facts.trials[number].choices)),
        )
    if most is not None and len(keys) > most:
        table.add_row(f"and {len(keys) - most} more")
    return table
