"""Commands about latency tables: profile."""

from pathlib import Path
from typing import Annotated

import typer

from hwsearch.cli.app import AsJson, answer, app, reporting, showing
from hwsearch.cli.completion import complete_device, complete_supernet
from hwsearch.cli.output import say


@app.command(epilog="Example:  hwsearch profile cifar10-resnet --device ort-cpu:threads=2")
@reporting
def profile(
    supernet: Annotated[
        str,
        typer.Argument(
            help="A name from 'hwsearch supernets', or MODULE:FUNCTION.",
            autocompletion=complete_supernet,
        ),
    ],
    device: Annotated[
        str, typer.Option(help="See 'hwsearch devices'.", autocompletion=complete_device)
    ] = "ort-cpu:threads=1",
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights; latency does not depend on them.")
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(help="Repeat it; as for 'hwsearch search'.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Repeat it; as for 'hwsearch search'.")
    ] = None,
    subnets: Annotated[
        int | None,
        typer.Option(help="Subnets to measure blocks in; default: each block spec in three."),
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Default: among the user's latency tables.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every block of a supernet on a device: a latency table."""
    from hwsearch.data import user_data
    from hwsearch.devices import load_device
    from hwsearch.run.profile import deviation, load_for_latency, make_table
    from hwsearch.tables import FOLDER, file_name

    chosen = load_device(device)
    net = load_for_latency(supernet, checkpoint).restrict(freeze or (), only or ())
    path = out_file or user_data() / FOLDER / file_name(net.family, chosen.slug)
    try:
        with showing() as progress:
            table = make_table(net, chosen, path, subnets=subnets, progress=progress)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("go on with: the same command") from stop
    finally:
        chosen.close()
    found = deviation(table, net)
    if as_json:
        answer({"table": str(path), "specs": len(table.blocks), **table.facts})
        return
    lines = [f"table    {path}: {len(table.blocks)} block specs by {table.facts['method']}"]
    if found is not None:
        lines.append(f"checked  sums of its blocks are {found} that it was not made from")
    say(*lines)
