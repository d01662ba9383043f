"""``hwsearch.toml``: the settings of a search as a file that users edit."""

import textwrap
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import tomli_w

from hwsearch.errors import InputError
from hwsearch.files import decoded, write_atomic
from hwsearch.run.config import (
    FILE,
    RunConfig,
    known_settings,
    located,
    make_importable,
    parsed_toml,
    places,
)
from hwsearch.run.setting import explanation, setting, text

SETTINGS: Final = "hwsearch.toml"
TABLE, RECORDED = "search", "recorded"
Workers = int | str | None
LARGEST = 1_000_000  # bytes; a parser takes a multiple of it as memory


def check_workers(given: Workers) -> bool:
    """Return whether a Ray cluster evaluates: True for ``"ray"``, False for 1 or None."""
    if given == "ray":
        return True
    if given is None or (not isinstance(given, bool) and str(given) == "1"):
        return False
    raise InputError(
        f"workers {given!r} are not usable: a search evaluates in its own process, or by 'ray' on "
        "the nodes of a Ray cluster, which also runs on one machine; run 'hwsearch worker' on "
        "each node and give workers 'ray', or leave the setting out"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings(RunConfig):
    """All settings of a search: those of `RunConfig`, and those that a run does not record."""

    out: str | None = setting(
        None,
        "A folder that does not exist yet; by default runs/SUPERNET-DEVICE.",
        text("a folder"),
        example="runs/first",
    )
    workers: str | int | None = setting(
        None,
        "ray evaluates on the nodes of a Ray cluster; by default this process does.",
        lambda _, value: check_workers(value),
        example="ray",
    )

    @property
    def config(self) -> RunConfig:
        """Settings that a run records."""
        return RunConfig(**{each.name: getattr(self, each.name) for each in fields(RunConfig)})


_HEADER = """\
# The settings of a search. 'hwsearch search' in this folder reads them, and 'hwsearch search
# --config FILE' reads them from anywhere. What is not set here has its default, options on the
# command line override what is set, and paths are relative to the folder in which the command is
# run. Remove the # before a setting to set it.
"""


def settings_text() -> str:
    """Return every setting of a search as TOML: its explanation, then its default."""
    blocks = [_HEADER, f"[{TABLE}]"]
    for each in fields(SearchSettings):
        shown = each.metadata["example"] if each.default is None else each.default
        line = tomli_w.dumps({each.name: shown}).strip()
        if isinstance(shown, tuple):
            line = f"{each.name} = {list(shown)}"  # on one line
        lines = [f"# {text}" for text in textwrap.wrap(explanation(each), 96)]
        blocks.append("\n".join([*lines, f"# {line}" if each.default is None else line, ""]))
    return "\n".join(blocks)


def write_settings(path: Path) -> None:
    """Write a file of settings for users to edit, which must not exist."""
    if path.exists():
        raise InputError(
            f"settings {str(path)!r} exist already; edit them, or give another file name"
        )
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
    write_atomic(path, settings_text())


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a file of `write_settings`, or in a run's ``config.toml``.

    Modules beside the file can be imported from then on.
    """
    content = _read(path)
    told = content.get(TABLE, {})
    # The recorded values of a run are no settings.
    strange = set(content) - {TABLE, *([RECORDED] if path.name == FILE else [])}
    if strange or not isinstance(told, dict):
        found = min(strange, default=TABLE)
        raise InputError(
            f"settings {str(path)!r} have {found!r} where a table [{TABLE}] belongs; "
            f"put every setting below a line [{TABLE}]"
        )
    settings = known_settings(told, SearchSettings, path)
    try:
        config = SearchSettings(**settings).config
    except InputError as error:
        raise InputError(f"settings {str(path)!r}: {error}") from error
    recorded = content.get(RECORDED)
    directories = places(path.parent, recorded) if isinstance(recorded, dict) else ()
    make_importable(config, (*directories, Path.cwd(), path.absolute().parent))
    at = located(config, directories)
    return {name: getattr(at, name, value) for name, value in settings.items()}


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
