"""Shell completion of supernets, devices with their options, tactics, objectives and runs.

The functions must not raise or print, and must be fast: a shell calls them at every key press.
"""

import os
from pathlib import Path

from hwsearch import plugins
from hwsearch.cli.output import reserved_stdout
from hwsearch.data import user_data
from hwsearch.run.disk_usage import runs_below
from hwsearch.supernets.model_names import ELASTIC, ONNX


def complete_supernet(incomplete: str) -> list[str]:
    """Complete names of registered and imported supernets, ONNX files and elastic models."""
    shelf = user_data() / "supernets"
    imported = [each for each in _names(shelf) if not each.startswith(".")]
    typed = Path(incomplete)
    above = typed if incomplete.endswith("/") or not incomplete else typed.parent
    files = [str(above / each) for each in _names(above) if Path(each).suffix in (ONNX, ELASTIC)]
    return _starting(incomplete.removeprefix("./"), [*_registered("supernets"), *imported, *files])


def complete_tactic(incomplete: str) -> list[str]:
    """Complete names of tactics."""
    return _starting(incomplete, _registered("tactics"))


def complete_objective(incomplete: str) -> list[str]:
    """Complete names of registered quantities."""
    return _starting(incomplete, _registered("quantities"))


def complete_device(incomplete: str) -> list[str]:
    """Complete names of devices; after ``NAME:``, the options that are not given yet."""
    name, colon, given = incomplete.partition(":")
    if not colon:
        return _starting(incomplete, _registered("devices"))
    try:
        from hwsearch.devices import load_factory

        with reserved_stdout():  # the shell reads it
            options = [option.name for option in load_factory(name).options]
    except Exception:  # noqa: BLE001 - a device that cannot be loaded completes nothing
        return []
    *before, last = given.split(",")
    taken = {each.partition("=")[0] for each in before}
    start = ",".join(before) + "," if before else ""
    return [
        f"{name}:{start}{option}="
        for option in options
        if option not in taken and option.startswith(last)
    ]


def complete_run(incomplete: str) -> list[str]:
    """Complete folders of runs: ``runs/f``, and an empty text, complete to ``runs/first``."""
    typed = Path(incomplete)
    above = typed if incomplete.endswith("/") or not incomplete else typed.parent
    return _starting(incomplete.removeprefix("./"), list(map(str, runs_below(above))))


def _registered(group: str) -> list[str]:
    try:
        return plugins.names(f"hwsearch.{group}")
    except Exception:  # noqa: BLE001 - commands report a name that is registered twice
        return []


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
