"""Commands about supernets: supernets, import."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import hwsearch
from hwsearch.cli.app import AsJson, answer, app, reporting
from hwsearch.cli.output import out, say


@app.command(epilog="Example:  hwsearch supernets --json")
@reporting
def supernets(as_json: AsJson = False) -> None:
    """List the supernets that are installed and the checkpoints that were imported."""
    from hwsearch.supernets.imported import imported_rows
    from hwsearch.supernets.zoo import load_family

    families = [load_family(name) for name in hwsearch.supernet_names()]
    rows: list[dict[str, Any]] = [
        {"name": f.name, "summary": f.summary, "family": None, "source": None} for f in families
    ]
    rows += imported_rows()
    if as_json:
        answer(rows)
    else:
        table = Table("supernet", "what it is", "imported from")
        for row in rows:
            origin = f"{row['source']} ({row['family']})" if row["source"] else ""
            table.add_row(row["name"], row["summary"], origin)
        out.print(table)


@app.command("import", epilog="Example:  hwsearch import weights.pth --as my-supernet")
@reporting
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
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint to safetensors with a card, and remember it by name."""
    from hwsearch.supernets.checkpoints import bundled_file

    imported = hwsearch.import_checkpoint(checkpoint, name, supernet)
    if as_json:
        answer({**asdict(imported), "folder": str(imported.folder)})
        return
    how = "given" if supernet else "recognised"
    shipped = bundled_file(imported.family, "samples.npz").is_file()
    data = "" if shipped else " --data imagefolder:FOLDER"
    for title, text in (
        ("family", f"{imported.family} ({how}): {imported.description}"),
        ("tensors", f"{imported.tensors:,} with {imported.parameters:,} parameters"),
        ("written", str(imported.folder)),
        ("next", f"hwsearch search --supernet {name}{data} --out runs/{name}"),
    ):
        say(f"{title:8} {text}")
