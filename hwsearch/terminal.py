"""Live progress and tables for the terminal."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from hwsearch.optimizer.stopping import LOOKAHEAD
from hwsearch.run.search_summary import Comparison, SearchSummary, times_better

if TYPE_CHECKING:
    import pandas as pd


_KEY_WIDTH = 16  # keys are copied by users: never truncated


class TerminalProgress:
    """Progress of a run as a live bar, or as plain lines without a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<8}", style="bold", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._done, self._total, self._began = "", 0, 0, time.monotonic()

    def __enter__(self) -> Self:
        # Without a terminal rich before 15 ends with an empty line.
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a bar for a phase."""
        self._name, self._done, self._total, self._began = name, done, total, time.monotonic()
        if self._task is not None:
            self._bars.update(self._task, completed=self._bars.tasks[self._task].total)
        self._task = self._bars.add_task(name, total=total, completed=done, figures="")
        if not self.console.is_terminal:
            self.console.print(f"{name}: {done} of {total}")

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        self._done += steps
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def state(self, **figures: float | int | str) -> None:
        """Show figures beside the bar."""
        text = "  ".join(f"{name} {_figure(value)}" for name, value in figures.items())
        if self._task is not None:
            self._bars.update(self._task, figures=text)
        if not self.console.is_terminal:
            spent = time.monotonic() - self._began
            self.console.print(
                f"{self._name}: {self._done} of {self._total}  {text}  {spent:.0f} s"
            )

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def front_table(front: "pd.DataFrame", names: Sequence[tuple[str, str]], knee: str) -> Table:
    """Return a table of the front, one row per subnet.

    ``names`` are (objective, unit) in order, ``knee`` is the key of the member to mark.
    """
    predicted = [name for name, _ in names if f"{name}_source" in front]
    title = f"candidates, {', '.join(predicted)} predicted" if predicted else "front"
    table = Table(
        title=f"{title}: {len(front)} subnets",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("key", no_wrap=True, min_width=_KEY_WIDTH)
    columns = []
    for name, unit in names:
        columns.append((name, f"{name} {unit}".strip()))
        if f"{name}_report" in front:
            columns.append((f"{name}_report", f"on report {unit}".strip()))
    if "macs" not in [name for name, _ in names]:
        columns.append(("macs", "MACs"))
    for _, title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    sure = "probability" in front
    table.add_column("on front" if sure else "", no_wrap=True)
    for row in front.to_dict("records"):
        cells = [("~" if n in predicted else "") + _cell(row, n) for n, _ in columns]
        mark = "knee" if row["key"] == knee else ""
        cells.append(f"{_percent(row['probability']):>4} {mark}" if sure else mark)
        table.add_row(str(row["key"]), *cells)
    return table


def summary_lines(summary: SearchSummary) -> list[str]:
    """Return the search summary in a few lines; predicted values are marked."""
    reached = summary.hypervolumes[-1]
    units = " x ".join(unit or name for name, unit in summary.objectives.items())
    failed = f", {summary.failed} of them failed" if summary.failed else ""
    reused = f", {summary.reused} reused" if summary.reused else ""
    lines = [
        f"search   {summary.members} of {summary.evaluated} evaluations are on the front "
        f"({summary.share:.0%}){failed}{reused}; hypervolume {_figure(reached)} ({units})"
    ]
    if summary.gain is not None:
        share = f" ({summary.gain / reached:.1%})" if reached else ""
        lines.append(
            f"         {LOOKAHEAD} more would add {_figure(summary.gain)}{share}, predicted"
        )
    last = {fit.objective: fit for fit in summary.fits}
    for name, fit in last.items():
        rank = "" if fit.tau is None else f", tau {fit.tau:.2f}"
        lines.append(
            f"         {name} as it was predicted, last {fit.n}: {fit.covered:.0%} inside "
            f"95% intervals{rank}"
        )
    compared = {
        "as many drawn by chance, predicted": summary.random,
        f"uniform scaling ({len(summary.uniform)} subnets)": summary.uniform_hypervolume,
    }
    told = [
        f"{name}: {_figure(value)} ({value / reached:.0%})"
        for name, value in compared.items()
        if value is not None and reached
    ]
    if told:
        lines.append(f"against  hypervolume of {'; of '.join(told)}")
    first, *others = summary.objectives
    if summary.uniform_at_knee is not None:
        lines.append(
            f"         at the knee's {others[0]}, {first} {summary.knee[first]:.4g} where uniform "
            f"scaling has {summary.uniform_at_knee:.4g}, interpolated"
        )
    return [*lines, *(f"         {_versus(each, summary.metric)}" for each in summary.versus)]


def _versus(versus: Comparison, metric: str) -> str:
    times = times_better(versus.cost, 1.0, versus.times)  # as much of it as the member has
    text = f"largest subnet: {times:.3g} times the {versus.cost} of the {versus.member}"
    if versus.points is None or versus.low is None or versus.high is None:
        return text
    interval = f"{versus.low:+.2g} to {versus.high:+.2g}"
    return f"{text}, whose {metric} differs by {versus.points:+.2g} ({interval}, search images)"


def size_text(size: int) -> str:
    """Return a number of bytes in decimal units: 1 MB is a million."""
    return f"{size} bytes" if size < 1000 else f"{_figure(size)}B"


def _cell(row: dict[Any, Any], name: str) -> str:
    value, low, high = row[name], row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None or low != low or high != high:
        return _figure(value)
    return f"{figures(value, 4)} ±{figures(max(value - low, high - value), 2)}"


def figures(value: float, digits: int) -> str:
    """Write a number with so many significant digits, a larger one as a whole number."""
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _percent(share: float) -> str:
    """Return a probability in percent; estimated from draws, it is never 0% or 100%."""
    if share > 0.995:
        return ">99%"
    return "<1%" if share < 0.005 else f"{share:.0%}"


def _figure(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.4g}"
