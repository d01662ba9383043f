"""``hwsearch.toml``: the settings of a search, in a file that people write."""

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_type_hints

import tomli_w

from hwsearch.errors import InputError, unknown
from hwsearch.files import decoded, write_atomic
from hwsearch.run.cluster.workers import check_workers
from hwsearch.run.config import FILE, OBSOLETE, RunConfig, parsed_toml

SETTINGS: Final = "hwsearch.toml"
TABLE, RECORDED = "search", "recorded"
LARGEST = 1_000_000  # bytes; nobody writes more by hand, and a parser's memory is a multiple of it
# What a search takes and a run does not record, because it decides no number: its type, and what
# it is.
BESIDE: Final[Mapping[str, tuple[type | UnionType, str]]] = {
    "out": (str, "A folder that does not exist yet; runs/SUPERNET-DEVICE by default."),
    "workers": (
        int | str,
        "ray evaluates on the nodes of a Ray cluster, by default this process does.",
    ),
}
# What a setting may look like that is not set by default.
EXAMPLES: Final[Mapping[str, object]] = {
    "checkpoint": "random:0",
    "minutes": 30.0,
    "stop_gain": 0.5,
    "batch": 4,
    "warm_start": "runs/first",
    "out": "runs/first",
    "workers": "ray",
}
_HEADER = """\
# The settings of a search. 'hwsearch search' in this folder reads them, and 'hwsearch search
# --config FILE' reads them from anywhere. What is not set here has its default, options on the
# command line override what is set, and paths are relative to the folder in which the command is
# run. Remove the # before a setting to set it.
"""


def settings_text() -> str:
    """Write every setting of a search as TOML: its explanation, then its default.

    Explanations, names and defaults are those of `RunConfig`.
    """
    explained = _explanations(RunConfig) | {name: text for name, (_, text) in BESIDE.items()}
    blocks = [_HEADER, f"[{TABLE}]"]
    for name, default in _defaults().items():
        comment = textwrap.wrap(explained[name], 96)
        shown = EXAMPLES[name] if default is None else default
        line = tomli_w.dumps({name: list(shown) if isinstance(shown, tuple) else shown}).strip()
        lines = [f"# {text}" for text in comment]
        blocks.append("\n".join([*lines, f"# {line}" if default is None else line, ""]))
    return "\n".join(blocks)


def write_settings(path: Path) -> None:
    """Write a file of settings for people to edit.

    Raises:
        InputError: There is something under that name, or no folder to write it into.
    """
    if path.exists():
        raise InputError(
            f"settings {str(path)!r} exist already; edit them, or give another file name"
        )
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
    write_atomic(path, settings_text())


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings: those of `write_settings`, or the ``config.toml`` of a run to repeat it.

    Returns:
        Setting -> value, only what the file says; lists as tuples.

    Raises:
        InputError: It cannot be read, has a setting that does not exist, or a value of a type or
            size that the setting cannot have. The text names the file.
    """
    content = _read(path)
    told = content.get(TABLE, {})
    # What a run recorded of itself is no setting.
    strange = set(content) - {TABLE, *([RECORDED] if path.name == FILE else [])}
    if strange or not isinstance(told, dict):
        found = min(strange, default=TABLE)
        raise InputError(
            f"settings {str(path)!r} have {found!r} where a table [{TABLE}] belongs; "
            f"put every setting below a line [{TABLE}]"
        )
    told = {name: value for name, value in told.items() if name not in OBSOLETE}
    for name in told:
        if name not in (known := _defaults()):
            raise unknown(f"setting in {str(path)!r}", name, known)
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
    }
    for name, (type_, text) in BESIDE.items():
        if name in settings and not isinstance(settings[name], type_):
            raise InputError(f"settings {str(path)!r}: {name} is {settings[name]!r}; give: {text}")
    try:
        check_workers(settings.get("workers"))
        RunConfig(**{name: v for name, v in settings.items() if name not in BESIDE})
    except InputError as error:
        raise InputError(f"settings {str(path)!r}: {error}") from error
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(
                f"settings {str(path)!r} have more than {LARGEST:,} bytes; "
                "give a file such as 'hwsearch init' writes"
            )
        return parsed_toml(decoded(data))
    except FileNotFoundError:
        raise InputError(
            f"there is no file of settings {str(path)!r}; 'hwsearch init {path}' writes one"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"settings {str(path)!r} cannot be read: {error}") from error


def _defaults() -> dict[str, Any]:
    """Every setting and its default, in the order of `RunConfig`."""
    return {**{field.name: field.default for field in fields(RunConfig)}, **dict.fromkeys(BESIDE)}


def _explanations(record: type) -> dict[str, str]:
    """Attribute -> what the docstring of its class says of it, as plain text."""
    text = inspect.getdoc(record) or ""
    listed = textwrap.dedent(text.partition("Attributes:\n")[2])
    entries = re.findall(r"^(\w+): ((?:.+)(?:\n +.+)*)", listed, re.MULTILINE)
    plain = {name: re.sub(r"\s+", " ", said).replace("``", "") for name, said in entries}
    return {name: plain.get(name, "") for name in get_type_hints(record)}
