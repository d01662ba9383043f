"""Folders of data: those that ship with the project, and the user's own."""

import os
from importlib.resources import files
from pathlib import Path

from hwsearch.errors import HwsearchError


def places(name: str) -> tuple[Path, Path]:
    """Return the user's folder of ``predictors`` or ``latency_tables``, then the shipped one."""
    package = Path(str(files("hwsearch")))
    for folder in (package / name, package.parent / name):  # in a wheel, in a checkout
        if folder.is_dir():
            return user_data() / name, folder
    raise HwsearchError(f"this installation has no folder {name!r}; install hwsearch again")


def user_data() -> Path:
    """Return the folder for imported data; it may not exist yet.

    ``$HWSEARCH_HOME``, else ``$XDG_DATA_HOME/hwsearch``, else ``~/.local/share/hwsearch``.
    """
    if home := os.environ.get("HWSEARCH_HOME"):
        return Path(home).expanduser()
    shared = os.environ.get("XDG_DATA_HOME")
    return (Path(shared) if shared else Path.home() / ".local" / "share") / "hwsearch"
