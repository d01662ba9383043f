"""Plugins by name through entry points: families, devices, quantities and tactics."""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

from hwsearch.errors import InputError, unknown


def entry_points(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of a group.

    The metadata of all packages, which take tens of milliseconds to read, are read again where the
    module search path or a folder of it changes.
    """
    return _entry_points(group, tuple((folder, _modified_ns(folder)) for folder in sys.path))


def names(group: str) -> list[str]:
    """Return the sorted names in an entry-point group, such as ``hwsearch.devices``."""
    return sorted(_registered(group))


def load(group: str, name: str, what: str) -> Any:
    """Import the object that is registered as a ``what`` ("device"), or raise InputError."""
    registered = _registered(group)
    if name not in registered:
        raise unknown(what, name, registered)
    try:
        return registered[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{what} {name!r} is registered as {registered[name].value!r}, which cannot be "
            f"loaded: {error}. Reinstall the package that registers it."
        ) from error


def import_function(spec: str, what: str) -> Any:
    """Import ``module:function``, also from the working directory; raise InputError on failure."""
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise InputError(f"{what} {spec!r} is not of the form module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # The module is the user's: any exception in it is an error in the user's input.
        reason = str(error) if isinstance(error, ImportError) else repr(error)
        raise InputError(f"{what} {spec!r}: cannot import {module_name!r}: {reason}") from error
    if not hasattr(module, attribute):
        raise InputError(f"{what} {spec!r}: module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)


@lru_cache(maxsize=32)
def _entry_points(group: str, _: tuple[tuple[str, int], ...]) -> EntryPoints:
    return importlib.metadata.entry_points(group=group)


def _modified_ns(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def _registered(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        first = found.setdefault(point.name, point)
        if first.value != point.value:
            raise InputError(
                f"the name {point.name!r} is registered twice in {group}: as {first.value!r} and "
                f"as {point.value!r}. Uninstall one of the two packages."
            )
    return found
