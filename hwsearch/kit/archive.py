"""Reading the manifest and the models of a kit; each is checked before it is used."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES
from hwsearch.kit.manifest import NAME, KitModel, Manifest, SubnetEntry

_CHUNK = 2**20
# Errors of zipfile for damaged content, and for unknown compressions and encryption.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError)


def read_manifest(kit: Path) -> Manifest:
    """Return the manifest of a kit; raise InputError where it is missing or damaged."""
    where = repr(str(kit))
    if not kit.is_file():
        raise InputError(f"there is no kit {where}; make one by 'hwsearch kit SUPERNET'")
    try:
        with zipfile.ZipFile(kit) as archive:
            content = _manifest_in(archive)
    except _UNREADABLE as error:
        raise InputError(f"{where} is no kit of hwsearch: {error}") from error
    return Manifest.from_json(content, where)


def _manifest_in(archive: zipfile.ZipFile) -> bytes:
    if NAME not in archive.namelist():
        raise ValueError(f"it has no {NAME}")
    size = archive.getinfo(NAME).file_size
    if size > MAX_BYTES:
        raise ValueError(f"its {NAME} takes {size} bytes")
    return archive.read(NAME)


@contextmanager
def unpacked(kit: Path, models: Sequence[SubnetEntry]) -> Iterator[dict[str, Path]]:
    """Yield key -> file of models in a temporary folder; raise InputError where one is damaged."""
    with TemporaryDirectory(prefix="hwsearch-kit-") as folder:
        paths = {}
        with zipfile.ZipFile(kit) as archive:
            for model in models:
                assert isinstance(model, KitModel)
                paths[model.key] = Path(folder) / f"{model.key}.onnx"
                try:
                    with archive.open(model.member) as packed, paths[model.key].open("wb") as file:
                        _copy(packed, file, model)
                except (KeyError, *_UNREADABLE) as error:
                    if isinstance(error, InputError):
                        raise
                    raise _damaged(model, str(error)) from error
        yield paths


def _copy(packed: IO[bytes], file: IO[bytes], model: KitModel) -> None:
    """Copy a model; at most one byte more than its size is unpacked, against zip bombs."""
    found, left = hashlib.sha256(), model.n_bytes
    while chunk := packed.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        found.update(chunk)
        file.write(chunk)
    if left != 0:
        raise _damaged(model, f"it has not the {model.n_bytes} bytes that {NAME} says")
    if found.hexdigest() != model.sha256:
        raise _damaged(model, f"it is not the file whose SHA-256 {NAME} says")


def _damaged(model: KitModel, why: str) -> InputError:
    return InputError(
        f"model {model.key} of this kit is damaged: {why}; copy the kit again, or make it again"
    )
