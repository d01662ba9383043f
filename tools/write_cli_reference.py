"""Write docs/cli.md and the table of settings from the program; a test fails while they differ.

python tools/write_cli_reference.py
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from hwsearch.cli import app
from hwsearch.run.setting import explanation
from hwsearch.run.settings import SearchSettings

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
SETTINGS_PAGE = PAGE.with_name("settings.md")
BEGIN = "<!-- settings: written by tools/write_cli_reference.py -->"
END = "<!-- end of settings -->"
EVERYWHERE = ("quiet", "verbose", "debug")
HEAD = """\
# Commands

<!-- Written by tools/write_cli_reference.py. -->

{summary}

Exit codes: 0 done, 1 failure, 2 usage or bad input, 3 nothing satisfies the constraints, 130
interrupted, 141 the reader of a pipe is gone. Results go to stdout, progress, notes and errors to
stderr. With `--json` stdout has one JSON document: the result, or an object with `error` (`type`,
`message`, `exit_code`); of `verify` and `measure`, the result also where something failed.

These may stand before the command or after it:

"""
Callback = Callable[..., Any]


def reference() -> str:
    """Write the page.

    Raises:
        SystemExit: A command or option has no help.
    """
    root = dict(_parameters(app.registered_callback.callback))
    text = HEAD.format(summary=app.info.help) + _table(root[name] for name in EVERYWHERE)
    text += "\nAnd these alone:\n\n" + _table([root["version"]])
    shell = ("complete commands, options and names", "print what completes them")
    for name, what in zip(("install", "show"), shell, strict=True):
        text += f"| `--{name}-completion` | In the shell that it is typed in, {what}. |\n"
    for command in app.registered_commands:
        text += _section(command.name or command.callback.__name__, command.callback, command)
    for group in app.registered_groups:
        outer = group.typer_instance.registered_callback
        text += _section(group.name, outer.callback, outer)
        for command in group.typer_instance.registered_commands:
            name = f"{group.name} {command.name or command.callback.__name__}"
            text += _section(name, command.callback, command)
    return text


def _section(name: str, callback: Callback, info: Any) -> str:
    told = inspect.getdoc(callback)
    if not told or not info.epilog:
        raise SystemExit(f"hwsearch {name} has no help, or no example")
    rows = [row for name, row in _parameters(callback) if name not in EVERYWHERE]
    examples = [each.strip() for each in info.epilog.partition(":")[2].split("    ")]
    shown = "".join(f"- `{each}`\n" for each in examples if each)
    return f"\n## hwsearch {name}\n\n{told}\n\n{_table(rows)}\n{shown}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| `{name.replace('|', ' or ')}` | {text} |" for name, text in rows]
    return "\n".join(["| argument or option | what it is |", "| --- | --- |", *lines, ""])


def _parameters(callback: Callback) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name -> how it is written, and what it is."""
    for parameter in inspect.signature(callback).parameters.values():
        if parameter.annotation is typer.Context:
            continue
        type_, info = get_args(parameter.annotation)
        if not info.help:
            raise SystemExit(f"{parameter.name} of {callback.__name__} has no help")
        yield parameter.name, (_written(parameter, type_, info), _told(parameter, info))


def _written(parameter: inspect.Parameter, type_: Any, info: Any) -> str:
    if isinstance(info, ArgumentInfo):
        name = (info.metavar or parameter.name).upper().replace(".ONNX", ".onnx")
        optional = parameter.default is not parameter.empty and not name.startswith("[")
        return f"[{name}]" if optional else name
    assert isinstance(info, OptionInfo)
    names = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
    name = ", ".join(names or ["--" + parameter.name.replace("_", "-")])
    kinds = [each for each in (get_args(type_) or (type_,)) if each is not type(None)]
    if bool in kinds:
        return name.replace("/", " or ")
    kind = get_args(kinds[0])[0] if get_args(kinds[0]) else kinds[0]
    return f"{name} {info.metavar or {str: 'TEXT', int: 'N', float: 'X'}.get(kind, 'PATH')}"


def _told(parameter: inspect.Parameter, info: Any) -> str:
    default = parameter.default
    shown = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    return f"{info.help} Default: `{default}`." if shown else info.help


def settings_page() -> str:
    """Return docs/settings.md with its table of settings as they are declared."""
    before, rest = SETTINGS_PAGE.read_text(encoding="utf-8").split(BEGIN)
    rows = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for each in fields(SearchSettings):
        value = list(each.default) if isinstance(each.default, tuple) else each.default
        default = "" if value in (None, []) else f"`{value}`"
        rows.append(f"| `{each.name}` | {default} | {explanation(each)} |")
    return before + BEGIN + "\n".join(["", *rows, ""]) + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    SETTINGS_PAGE.write_text(settings_page(), encoding="utf-8")
