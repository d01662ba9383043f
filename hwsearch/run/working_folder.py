"""Resolution of a run's relative paths, also when it is resumed in another working directory."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hwsearch.run.config import RunConfig

# Names in ``config.toml``: the directory, and its path relative to the run's folder.
CWD, FROM_RUN = "working_directory", "working_directory_from_run"
_AFTER_COLON: Final = {"data": ("cifar10", "imagefolder", "npz"), "device": ("kit",)}
_WHOLE: Final = ("checkpoint", "warm_start")


def recorded_place(folder: Path) -> dict[str, str]:
    """Return the entries of ``config.toml`` on the working directory, for the folder of a run."""
    here = str(Path.cwd())
    try:
        here.encode()
        return {CWD: here, FROM_RUN: Path(os.path.relpath(here, folder)).as_posix()}
    except UnicodeEncodeError:
        return {}  # TOML cannot hold it
    except ValueError:  # on another drive
        return {CWD: here}


def places(folder: Path, recorded: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the directories for relative paths of a run, the preferred one first.

    They are the working directory in which the run began, the same relative to the run's folder,
    which may have been moved with it, and the current one.
    """
    found = [Path(recorded[CWD])] if isinstance(recorded.get(CWD), str) else []
    if isinstance(recorded.get(FROM_RUN), str):
        found.append(Path(os.path.normpath(folder.absolute() / recorded[FROM_RUN])))
    return (*found, Path.cwd())


def located(config: RunConfig, directories: tuple[Path, ...]) -> RunConfig:
    """Return settings whose relative paths are absolute if one of the directories has them."""
    changed: dict[str, str] = {}
    for name in _WHOLE:
        if (path := getattr(config, name)) is not None:
            changed[name] = _found(path, directories)
    for name, kinds in _AFTER_COLON.items():
        kind, colon, path = getattr(config, name).partition(":")
        if colon and kind in kinds:
            changed[name] = f"{kind}:{_found(path, directories)}"
    return replace(config, **changed)  # type: ignore[arg-type]  # all of them are texts


def module_directories(config: RunConfig, directories: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the directories of modules that the settings name, for ``sys.path``."""
    specs = [config.supernet, config.data]
    names = [spec.partition(":")[0].partition(".")[0] for spec in specs if ":" in spec]
    holding = (
        str(each)
        for each in directories
        if any((each / f"{name}.py").is_file() or (each / name).is_dir() for name in names)
    )
    return tuple(dict.fromkeys(holding))


def _found(path: str, directories: tuple[Path, ...]) -> str:
    if Path(path).expanduser().is_absolute():
        return path
    named = path.partition("#")[0]  # FILE#ema, FILE#raw
    found = next((d for d in directories if any((d / p).exists() for p in (path, named))), None)
    found = found or Path.cwd()
    return path if found == Path.cwd() else str(found / path)
