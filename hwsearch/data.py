"""Where the data folders lie that ship with the project: in the wheel, or beside the package."""

from importlib.resources import files
from pathlib import Path

from hwsearch.errors import HwsearchError

FOLDERS = ("predictors", "latency_tables")


def shipped(name: str) -> Path:
    """Return ``predictors`` or ``latency_tables``, from a wheel or from a checkout.

    Raises:
        HwsearchError: The installation lacks it.
    """
    package = Path(str(files("hwsearch")))
    for folder in (package / name, package.parent / name):
        if name in FOLDERS and folder.is_dir():
            return folder
    raise HwsearchError(f"this installation has no folder {name!r}; install hwsearch again")
