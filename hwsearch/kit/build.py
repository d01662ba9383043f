"""Writing a kit: a Python archive of models and of hwsearch's measuring code."""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import onnx

import hwsearch
from hwsearch.blocks import BlockSpec
from hwsearch.devices import GROUP
from hwsearch.devices.anchor import ANCHOR_FILE, anchor_bytes, anchor_digest
from hwsearch.devices.base import MeasureSettings
from hwsearch.errors import InputError
from hwsearch.files import staged_file
from hwsearch.kit.manifest import NAME, KitModel, Manifest
from hwsearch.models.repeated_weights import with_repeated_weights
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

# The modules that a kit runs, unchanged: there is one measuring protocol.
SHIPPED = (
    *("__init__", "errors", "files", "machine", "data", "blocks", "choices", "tables"),
    *("prediction/base", "prediction/block_times"),
    *("kit/__init__", "kit/manifest", "kit/results_file", "kit/measurement", "kit/main"),
)
SHIPPED_FOLDER = "devices"
# Modules with another name in a kit.
REPLACED = {
    "__main__.py": "kit/entry_point.py",
    "hwsearch/devices/model_check.py": "kit/no_model_check.py",
}
EMPTY = "hwsearch/prediction/__init__.py"  # that of the package needs scipy
_DATE = (1980, 1, 1, 0, 0, 0)
_LEVEL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class KitSubnet:
    """A subnet to measure by a kit, and its graph, whose weights do not get into the kit.

    ``shipped`` is the SHA-256 of the run's own model file in a kit that confirms; else empty.
    """

    arch: Architecture
    model: onnx.ModelProto
    shipped: str = ""


def empty_manifest(net: Supernet, purpose: str, settings: MeasureSettings) -> Manifest:
    """Return the manifest of a kit before it has models."""
    return Manifest(
        purpose=purpose,
        supernet=net.family,
        space=net.full_space.digest,
        anchor=anchor_digest(),
        devices=device_entries(),
        specs=(),
        models=(),
        settings=asdict(settings),
        version=hwsearch.__version__,
    )


def device_entries() -> dict[str, str]:
    """Return name -> ``module:attribute`` of the devices whose code gets into a kit."""
    ours = f"{hwsearch.__name__}.{SHIPPED_FOLDER}."
    points = sorted(entry_points(group=GROUP))
    return {point.name: point.value for point in points if point.value.startswith(ours)}


def write_kit(net: Supernet, subnets: Iterable[KitSubnet], out: Path, empty: Manifest) -> Manifest:
    """Write a kit atomically, consuming one subnet at a time; return the complete manifest.

    Equal models and code give the same bytes. Raise InputError where there is no model, or the
    file cannot be written.
    """
    specs: dict[BlockSpec, int] = {}
    models: list[KitModel] = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(out) as file:
            with zipfile.ZipFile(file, "w") as archive:
                for path, content in _code():
                    _store(archive, path, content)
                _store(archive, f"hwsearch/devices/{ANCHOR_FILE}", anchor_bytes())
                for subnet in subnets:
                    model, content = _packed(net, subnet, specs)
                    models.append(model)
                    _store(archive, model.member, content)
                manifest = replace(empty, specs=tuple(specs), models=tuple(models))
                _store(archive, NAME, manifest.to_json().encode())
            if not models:
                raise InputError("a kit without subnets measures nothing; give at least 1")
    except OSError as error:
        raise InputError(f"cannot write {str(out)!r}: {error}; give another --out") from error
    return manifest


def _packed(
    net: Supernet, subnet: KitSubnet, specs: dict[BlockSpec, int]
) -> tuple[KitModel, bytes]:
    content = with_repeated_weights(subnet.model).SerializeToString(deterministic=True)
    chain = net.blocks(subnet.arch) or ()
    model = KitModel(
        key=subnet.arch.key,
        architecture=subnet.arch.mapping,
        sha256=hashlib.sha256(content).hexdigest(),
        n_bytes=len(content),
        blocks={block.name: specs.setdefault(block.spec, len(specs)) for block in chain},
        shipped=subnet.shipped,
    )
    return model, content


def _code() -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every module in a kit."""
    package = files(hwsearch.__name__)
    for name, source in REPLACED.items():
        yield name, _source(package, source)
    yield EMPTY, b""
    inside = (f.name for f in (package / SHIPPED_FOLDER).iterdir() if f.name.endswith(".py"))
    named = [f"{each}.py" for each in SHIPPED]
    for name in (*named, *sorted(f"{SHIPPED_FOLDER}/{each}" for each in inside)):
        if f"hwsearch/{name}" not in REPLACED:
            yield f"hwsearch/{name}", _source(package, name)


def _source(package: Traversable, name: str) -> bytes:
    return package.joinpath(*name.split("/")).read_bytes()


def _store(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _DATE)  # no clock, so that equal kits are equal files
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, content, compresslevel=_LEVEL)
