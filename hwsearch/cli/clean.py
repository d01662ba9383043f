"""Command about disk usage: clean."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import hwsearch
from hwsearch.cli.app import answer, command
from hwsearch.cli.completion import complete_run
from hwsearch.run.disk_usage import Leftover, disk_usage_of, remove_leftovers, runs_below
from hwsearch.terminal import size_text


@command("hwsearch clean", "hwsearch clean runs/first --yes")
def clean(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Folders of runs; default: those in this folder and in the folders in it.",
            autocompletion=complete_run,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove what can go; else it is only shown.")
    ] = False,
) -> None:
    """Show what runs and the cache take on the disk, and remove what nothing needs.

    Fronts, subnets, measurements and what a stopped run goes on with stay, always.
    """
    given = [hwsearch.Run(run).folder for run in runs or ()]
    places = disk_usage_of(given if runs else runs_below(Path()))
    leftovers = [leftover for place in places for leftover in place.leftovers]
    gone = remove_leftovers(places) if yes else []
    rows = [
        {
            "kind": place.kind,
            "path": str(place.path),
            "bytes": place.size,
            "leftovers": [
                {"path": str(each.path), "bytes": each.size, "why": each.why}
                for each in place.leftovers
            ],
        }
        for place in places
    ]
    table = Table("what", "where", "size", "can go")
    for place in places:
        free = sum(each.size for each in place.leftovers)
        cells = (place.kind, str(place.path), size_text(place.size))
        table.add_row(*cells, size_text(free) if place.leftovers else "")
    lines = [f"{size_text(each.size):>8}  {each.path}  ({each.why})" for each in leftovers]
    if not leftovers:
        lines.append("nothing can go")
    elif not yes:
        lines.append(f"nothing was removed; --yes removes these {_told(leftovers)}")
    else:
        left = [each for each in leftovers if each not in gone]
        rest = f"; {_told(left)} stay, because another process writes their run" if left else ""
        lines.append(f"removed {_told(gone)}{rest}")
    answer({"places": rows, "removed": [str(each.path) for each in gone]}, table, *lines)


def _told(leftovers: list[Leftover]) -> str:
    return f"{len(leftovers)} ({size_text(sum(each.size for each in leftovers))})"
