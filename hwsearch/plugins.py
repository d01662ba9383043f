"""Plugins by name through entry points: families, devices, quantities and tactics."""

import importlib
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from hwsearch.errors import InputError, unknown


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
