"""The measuring code as files: what kits carry, and what is sent to other machines."""

import zipfile
from collections.abc import Iterator
from importlib.resources import files

import hwsearch
from hwsearch import plugins
from hwsearch.devices import GROUP
from hwsearch.devices.anchor import ANCHOR_FILES, anchors

# The modules that a kit runs, unchanged: there is one measuring protocol.
SHIPPED = (
    *("__init__", "errors", "files", "machine", "data", "blocks", "choices", "tables"),
    *("architectures", "space", "precision", "quantization"),
    *("prediction/base", "prediction/block_times"),
    *("kit/__init__", "kit/manifest", "kit/results", "kit/main", "kit/frames", "kit/server"),
)
SHIPPED_FOLDER = "devices"
ENTRY_POINT = "kit/entry_point.py"  # the ``__main__.py`` of the archive
EMPTY = "hwsearch/prediction/__init__.py"  # that of the package needs scipy
_DATE = (1980, 1, 1, 0, 0, 0)
_LEVEL = 9


def device_entries() -> dict[str, str]:
    """Return name -> ``module:attribute`` of the devices whose code gets into a kit."""
    ours = f"{hwsearch.__name__}.{SHIPPED_FOLDER}."
    points = sorted(plugins.entry_points(GROUP))
    return {point.name: point.value for point in points if point.value.startswith(ours)}


def code_files() -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file that a kit needs besides models and manifest."""
    package = files(hwsearch.__name__)
    yield "__main__.py", (package / ENTRY_POINT).read_bytes()
    yield EMPTY, b""
    inside = sorted(f.name for f in (package / SHIPPED_FOLDER).iterdir())
    devices = (f"{SHIPPED_FOLDER}/{name}" for name in inside if name.endswith(".py"))
    for name in (*(f"{each}.py" for each in SHIPPED), *devices):
        yield f"hwsearch/{name}", (package / name).read_bytes()
    for name, content in zip(ANCHOR_FILES, anchors(), strict=True):
        yield f"hwsearch/{SHIPPED_FOLDER}/{name}", content


def store_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a file to an archive; equal content gives equal bytes."""
    info = zipfile.ZipInfo(name, _DATE)  # no clock, so that equal kits are equal files
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, content, compresslevel=_LEVEL)
