"""Commands for machines without hwsearch: kit, confirm."""

from pathlib import Path
from typing import Annotated

import typer

import hwsearch
from hwsearch.cli.app import AsJson, RunArgument, answer, app, reporting, showing
from hwsearch.cli.completion import complete_supernet
from hwsearch.cli.output import say
from hwsearch.cli.runs import print_run


@app.command(epilog="Example:  hwsearch kit ofa-mbv3-w1.0 --out kit.pyz")
@reporting
def kit(
    supernet: Annotated[
        str,
        typer.Argument(
            help="A name from 'hwsearch supernets', or MODULE:FUNCTION.",
            autocompletion=complete_supernet,
        ),
    ] = "cifar10-resnet",
    out_file: Annotated[
        Path, typer.Option("--out", help="The file; it runs with Python, numpy and onnxruntime.")
    ] = Path("kit.pyz"),
    subnets: Annotated[int, typer.Option(help="How many subnets it measures.")] = 40,
    freeze: Annotated[
        list[str] | None, typer.Option(help="As for a search: only a part of the space.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="As for a search: only a part of the space.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one file that measures a supernet's subnets on a machine without hwsearch."""
    with showing() as progress:
        progress.phase("models", subnets)
        made = hwsearch.make_kit(
            supernet,
            out_file,
            subnets=subnets,
            freeze=freeze or (),
            only=only or (),
            built=lambda _: progress.advance(),
        )
    size = out_file.stat().st_size
    if as_json:
        answer({"file": str(out_file), "bytes": size, "digest": made.digest})
        return
    devices = ", ".join(made.devices)
    say(
        f"kit      {out_file}: {len(made.models)} subnets with {len(made.specs)} block specs, "
        f"{size / 1e6:.1f} MB",
        f"next     there:  python {out_file.name} --device ort-cpu:threads=4 --out table.json",
        "         here:   hwsearch search --device kit:table.json",
        f"devices  {devices}; it needs Python 3.10 or later, numpy and the device's runtime",
    )


@app.command(epilog="Example:  hwsearch confirm runs/phone timings.json")
@reporting
def confirm(
    run: RunArgument,
    timings: Annotated[
        Path, typer.Argument(metavar="TIMINGS.json", help="What the run's kit wrote.")
    ],
    as_json: AsJson = False,
) -> None:
    """Turn the candidates of a run into a front by what its kit measured."""
    with showing() as progress:
        confirmed = hwsearch.confirm(run, timings, progress=progress)
    print_run(confirmed, as_json)
