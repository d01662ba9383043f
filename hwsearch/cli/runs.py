"""Commands about runs: search, resume, front, export, verify, report, watch."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.live import Live

import hwsearch
from hwsearch.accuracy.task import NO_DATA
from hwsearch.cli.app import RunArgument, answer, command, showing
from hwsearch.cli.output import Terminal, result_stream
from hwsearch.cli.settings import ConfigFile, chosen_settings, setting_options
from hwsearch.errors import VerificationError
from hwsearch.run.config import PICTURE, REPORT, RunConfig
from hwsearch.run.disk_usage import size_of
from hwsearch.terminal import front_table, size_text, summary_lines

if TYPE_CHECKING:
    import pandas as pd

_EVERY_S: Final = 2.0
_SHARE: Final = 5  # of its own time that reading a large run waits


@command(
    "hwsearch search --out runs/first",
    "hwsearch search --device ort-cpu:threads=2 --constraint 'latency <= 1' --budget 100",
)
@setting_options()
def search(config: ConfigFile = None, **given: Any) -> None:
    """Search a supernet for one device, and export the confirmed front as verified ONNX.

    With --device kit:TABLE.json it ends with candidates and a kit that times them; with --data
    none it ends with candidates whose accuracy is predicted.
    """
    settings, where_from = chosen_settings(config, given)
    with showing() as progress:
        if where_from:
            progress.note(where_from)
        net = settings.pop("supernet", RunConfig().supernet)
        run = hwsearch.search(net, **settings, progress=progress)
    print_run(run)


@command("hwsearch resume runs/first --budget 200")
@setting_options("budget", "minutes", "stop_gain", "workers")
def resume(run: RunArgument, **limits: Any) -> None:
    """Go on with a run that was stopped, or give a finished one a larger budget.

    Limits that are not given stay those of the run.
    """
    with showing() as progress:
        finished = hwsearch.resume(run, **limits, progress=progress)
    print_run(finished)


@command("hwsearch front runs/first --json")
def front(run: RunArgument) -> None:
    """Show the front of a finished run, or its candidates."""
    print_run(hwsearch.Run(run))


@command("hwsearch export runs/first --select 'latency <= 1' --to models")
def export(
    run: RunArgument,
    select: Annotated[
        str,
        typer.Option(
            help="all, knee, a key, a constraint such as 'latency <= 12', or, with how sure it "
            "has to be, 'latency <= 12 @ 95%': the best that is."
        ),
    ] = "all",
    to: Annotated[
        Path | None, typer.Option(help="Folder that receives copies; else only the paths.")
    ] = None,
) -> None:
    """Verify selected subnets of a front again and copy them."""
    folders = [str(folder) for folder in hwsearch.Run(run).export(select, to)]
    answer(folders, *folders)


@command("hwsearch verify runs/first")
def verify(run: RunArgument) -> None:
    """Check every exported subnet of a run again, from its files alone, and all files' digests."""
    results = hwsearch.Run(run).verify()
    lines = [f"{key}  {problem or 'ok'}" for key, problem in results.items()]
    failed = sum(problem is not None for problem in results.values())
    if not failed:
        lines.append(f"{len(results)} subnets verified")
    answer(results, *lines)
    if failed:
        raise VerificationError(f"{failed} of {len(results)} checks of {run} failed")


@command("hwsearch report runs/first", "hwsearch report runs/a runs/b")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN2 ...]", help="Folders of runs.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file; default: report.html, or comparison.html, in the first RUN."
        ),
    ] = None,
) -> None:
    """Write a page that opens offline, and pictures beside it; of several runs, compared."""
    from hwsearch.report.write import write_report

    written = [str(path) for path in write_report([hwsearch.Run(run) for run in runs], to)]
    answer(written, *written)


@command("hwsearch watch runs/first", has_json=False)
def watch(run: RunArgument) -> None:
    """Show the front of a run live, until it is finished; without a terminal once."""
    from hwsearch.report.run_data import read_run_data
    from hwsearch.report.terminal_view import terminal_view

    watched, out = hwsearch.Run(run), Terminal(result_stream())
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


def print_run(run: "hwsearch.Run") -> None:
    """Print the front of a finished run."""
    from hwsearch.run.outcome import CANDIDATES, FRONT, SUMMARY  # loads slowly

    members, summary = run.members, run.summary
    names = [(o.name, o.unit) for o in run.objectives]
    lines = [f"note     {warning}" for warning in run.recorded.get("warnings", ())]
    if summary is not None:
        lines += summary_lines(summary)
    files = "card.json" if run.config.data == NO_DATA else "model.onnx, card.json, infer.py"
    lines.append(f"subnets  {run.folder}/subnets/KEY/{files}")
    table = FRONT if run.confirmed else CANDIDATES
    written = {"report": REPORT, "picture": PICTURE, "summary": SUMMARY, "table": table}
    for title, name in written.items():
        if (run.folder / name).is_file():
            lines.append(f"{title:8} {run.folder}/{name}")
    lines.append(f"disk     {size_text(size_of(run.folder))} in {run.folder}")
    answer(
        json.loads(members.to_json(orient="records")),
        front_table(members, names, run.select("knee")[0]),
        *lines,
        *_next_steps(run, members),
    )


def _next_steps(run: "hwsearch.Run", members: "pd.DataFrame") -> list[str]:
    """Return the commands that turn candidates into a front; none without candidates."""
    lines = []
    if "latency_source" in members:
        lines += [
            f"kit      {run.folder}/kit.pyz times these candidates: ~ marks what is predicted",
            "next     there:  python kit.pyz --out timings.json",
            f"         here:   hwsearch confirm {run.folder} timings.json",
        ]
    if run.config.data == NO_DATA:
        lines += [
            "models   none: batch statistics, and the check of a model, need images; ~ marks what "
            "is predicted",
            f"next     with images:  {run.with_images}",
        ]
    return lines
