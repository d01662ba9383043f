"""Commands that show runs: report, watch."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.live import Live

import hwsearch
from hwsearch.cli.app import AsJson, RunArgument, answer, app, reporting
from hwsearch.cli.output import out, say

_EVERY_S: Final = 2.0
_SHARE: Final = 5  # of its own time that reading a large run waits


@app.command(epilog="Examples:  hwsearch report runs/first    hwsearch report runs/a runs/b")
@reporting
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN2 ...]", help="Folders of runs.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file; default: report.html, or comparison.html, in the first RUN."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a page that opens offline, and pictures beside it; of several runs, compared."""
    from hwsearch.report.write import write_report

    written = [str(path) for path in write_report([hwsearch.Run(run) for run in runs], to)]
    answer(written) if as_json else say(*written)


@app.command(epilog="Example:  hwsearch watch runs/first")
@reporting
def watch(run: RunArgument) -> None:
    """Show the front of a run live, until it is finished; without a terminal once."""
    from hwsearch.report.run_data import read_run_data
    from hwsearch.report.terminal_view import terminal_view

    watched = hwsearch.Run(run)
    if not out.is_terminal:
        out.print(terminal_view(read_run_data(watched)))
        return
    with Live(console=out, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            live.update(terminal_view(read_run_data(watched), out.width, out.height), refresh=True)
            if watched.finished:
                return
            time.sleep(max(_EVERY_S, _SHARE * (time.monotonic() - began)))
