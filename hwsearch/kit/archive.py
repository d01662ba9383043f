"""Reading a kit: the manifest, and its models, each checked before it is used."""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from hwsearch.errors import InputError
from hwsearch.kit.manifest import MAX_BYTES, NAME, KitModel, Manifest

_CHUNK = 2**20


def read_manifest(kit: Path) -> Manifest:
    """Read what a kit holds.

    Raises:
        InputError: There is no such file, it is no kit, or its manifest is damaged.
    """
    where = repr(str(kit))
    if not kit.is_file():
        raise InputError(f"there is no kit {where}; make one by 'hwsearch kit SUPERNET'")
    try:
        with zipfile.ZipFile(kit) as archive:
            if NAME not in archive.namelist():
                raise InputError(f"{where} is no kit of hwsearch: it has no {NAME}")
            size = archive.getinfo(NAME).file_size
            if size > MAX_BYTES:
                raise InputError(f"{where} is damaged: its {NAME} takes {size} bytes")
            return Manifest.from_json(archive.read(NAME), where)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is no kit of hwsearch: {error}") from error


@contextmanager
def unpacked(kit: Path, models: Sequence[KitModel]) -> Iterator[dict[str, Path]]:
    """Yield key -> file of some models in a temporary folder, each what the manifest says it is.

    Raises:
        InputError: One is missing or another file than the manifest says.
    """
    with TemporaryDirectory(prefix="hwsearch-kit-") as folder:
        paths = {}
        with zipfile.ZipFile(kit) as archive:
            for model in models:
                paths[model.key] = Path(folder) / f"{model.key}.onnx"
                try:
                    with archive.open(model.member) as packed, paths[model.key].open("wb") as file:
                        _copy(packed, file, model)
                except (KeyError, zipfile.BadZipFile, EOFError) as error:
                    raise _damaged(model, str(error)) from error
        yield paths


def _copy(packed: IO[bytes], file: IO[bytes], model: KitModel) -> None:
    """Write one byte more than promised at most: a few bytes of a zip can unpack to anything."""
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
