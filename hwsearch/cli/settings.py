"""Settings in a file: the command init, and reading them for a search."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsearch.cli.app import AsJson, answer, app, reporting
from hwsearch.cli.output import say
from hwsearch.run.settings import SETTINGS, read_settings, write_settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"Settings, which options override; default: {SETTINGS} here, if there is one. The "
        "config.toml of a run repeats it.",
    ),
]


@app.command(epilog="Example:  hwsearch init && hwsearch search")
@reporting
def init(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The file to write.", show_default=True)
    ] = Path(SETTINGS),
    as_json: AsJson = False,
) -> None:
    """Write a file of settings with every one explained, so that a search can be repeated."""
    write_settings(file)
    if as_json:
        answer({"file": str(file)})
        return
    config = "" if file == Path(SETTINGS) else f" --config {file}"
    say(f"settings {file}", f"next     hwsearch search{config}")


def chosen_settings(config: Path | None, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the settings of a file, overridden by given options, and a line on their origin.

    Without a file, hwsearch.toml in the working directory is read if it exists; the line is empty
    if nothing was read.
    """
    path = config or Path(SETTINGS)
    found = config is not None or path.exists()
    told = read_settings(path) if found else {}
    given = {name: value for name, value in given.items() if value is not None}
    over = [name for name in given if name in told]
    line = f"settings {path}" + (f", but for {', '.join(over)} as given" if over else "")
    return {**told, **given}, line if found else ""
