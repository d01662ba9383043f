"""Settings of a search on the command line: options, files, and the command init."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from hwsearch.cli.app import answer, command, sizes_of
from hwsearch.cli.completion import (
    complete_device,
    complete_objective,
    complete_run,
    complete_supernet,
    complete_tactic,
)
from hwsearch.run.setting import explanation
from hwsearch.run.settings import SETTINGS, SearchSettings, read_settings, write_settings

_COMPLETE: dict[str, Callable[[str], list[str]]] = {
    "supernet": complete_supernet,
    "device": complete_device,
    "objectives": complete_objective,
    "tactic": complete_tactic,
    "warm_start": complete_run,
}
_TYPES = get_type_hints(SearchSettings)
_METAVARS = {"warm_start": "RUN|FILE.csv", "workers": "ray"}
_KINDS = {str: "TEXT", int: "N", float: "X"}
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"Settings, which options override; default: {SETTINGS} here, if there is one. The "
        "config.toml of a run repeats it.",
    ),
]


@command("hwsearch init && hwsearch search")
def init(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The file to write.", show_default=True)
    ] = Path(SETTINGS),
) -> None:
    """Write a file of settings with every one explained, so that a search can be repeated."""
    write_settings(file)
    config = "" if file == Path(SETTINGS) else f" --config {file}"
    answer({"file": str(file)}, f"settings {file}", f"next     hwsearch search{config}")


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


def setting_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options for the named settings, by default all, as keyword arguments of a command.

    Options that are not given are None; those of a list can be repeated.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        given = inspect.signature(command).parameters.values()
        own = [each for each in given if each.kind is not inspect.Parameter.VAR_KEYWORD]
        wanted = names or [each.name for each in fields(SearchSettings)]
        derived = [
            _option(each, told=not names) for each in fields(SearchSettings) if each.name in wanted
        ]
        # Typer derives options from the signature.
        command.__signature__ = inspect.Signature([*own, *derived])  # type: ignore[attr-defined]
        return command

    return decorate


def _option(declared: Any, *, told: bool) -> inspect.Parameter:
    """Return the parameter of a setting; ``told`` shows its default in the help."""
    name = declared.name
    kinds = [each for each in get_args(_TYPES[name]) or (_TYPES[name],) if each is not type(None)]
    numbers = int in kinds and isinstance(declared.default, tuple)  # one option: 1,4,16
    repeated = isinstance(declared.default, tuple) and not numbers
    kind: Any = list[str] if repeated else str if numbers or str in kinds else kinds[0]
    option = f"--{(name.removesuffix('s') if repeated else name).replace('_', '-')}"
    text = ("Repeat it. " if repeated else "") + explanation(declared)
    if told and declared.default not in (None, ()):
        default = ",".join(map(str, declared.default)) if numbers else declared.default
        text += f" Default: {default}."
    info = typer.Option(
        option,
        help=text,
        metavar="N,N,..." if numbers else _METAVARS.get(name, _KINDS.get(kind, "TEXT")),
        parser=sizes_of if numbers else None,
        autocompletion=_COMPLETE.get(name),
    )
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
