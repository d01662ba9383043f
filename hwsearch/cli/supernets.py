"""Commands about supernets: supernets, import."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import hwsearch
from hwsearch.cli.app import answer, app, command


@command("hwsearch supernets --json")
def supernets() -> None:
    """List the supernets that are installed and the checkpoints that were imported."""
    from hwsearch.supernets.imported import imported_rows
    from hwsearch.supernets.zoo import load_family

    families = [load_family(name) for name in hwsearch.supernet_names()]
    rows: list[dict[str, Any]] = [
        {"name": f.name, "summary": f.summary, "family": None, "source": None} for f in families
    ]
    rows += imported_rows()
    table = Table("supernet", "what it is", "imported from")
    for row in rows:
        origin = f"{row['source']} ({row['family']})" if row["source"] else ""
        table.add_row(row["name"], row["summary"], origin)
    answer(rows, table)


@command("hwsearch import weights.pth --as my-supernet", register=partial(app.command, "import"))
def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Weights: safetensors, a torch file of tensors only, or an index of shards; "
            "FILE#ema or FILE#raw where it has both."
        ),
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name to load it by.")],
    supernet: Annotated[
        str | None, typer.Option(help="Its family; default: recognised by keys and shapes.")
    ] = None,
) -> None:
    """Convert a checkpoint to safetensors with a card, and remember it by name."""
    from hwsearch.supernets.weight_sources import bundled_file

    imported = hwsearch.import_checkpoint(checkpoint, name, supernet)
    how = "given" if supernet else "recognised"
    shipped = bundled_file(imported.family, "samples.npz").is_file()
    data = "" if shipped else " --data imagefolder:FOLDER"
    answer(
        {**asdict(imported), "folder": str(imported.folder)},
        f"family   {imported.family} ({how}): {imported.description}",
        f"tensors  {imported.tensors:,} with {imported.parameters:,} parameters",
        f"written  {imported.folder}",
        f"next     hwsearch search --supernet {name}{data} --out runs/{name}",
    )
