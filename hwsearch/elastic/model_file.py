"""Reading of ONNX files that users hand in: what the file is, whether it is whole, its digest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
)
from onnx import TensorProto

from hwsearch.errors import InputError
from hwsearch.machine import available_memory_bytes
from hwsearch.models.onnx_file import external_tensors, stray_data

_EXPORT = "export the model to ONNX, for PyTorch with torch.onnx.export"
# First bytes of files that are taken for ONNX models, from a position on.
_OTHERS = (
    (0, b"version https://git-lfs", "is a pointer of Git LFS; fetch the file with `git lfs pull`"),
    (0, b"PK\x03\x04", f"is a zip archive, such as a PyTorch checkpoint; {_EXPORT}"),
    (0, b"\x80\x02", f"is a pickle, such as a PyTorch checkpoint; {_EXPORT}"),
    (0, b"\x89HDF", "is an HDF5 file, such as a Keras model; export it with tf2onnx"),
    (0, b"\x1f\x8b", "is compressed; unpack it"),
    (0, b"<?xml", "is XML, such as an OpenVINO model; give the ONNX model it was made from"),
    (0, b"{", "is JSON; give the binary ONNX model"),
    (0, b"<!", "is a web page, such as that of an error or a login; download the model again"),
    (0, b"<html", "is a web page, such as that of an error or a login; download the model again"),
    (0, b"<", "is a text; give the binary ONNX model"),
    (4, b"ORTM", "is in ONNX Runtime's own format; give the .onnx file it was made from"),
    (4, b"TFL3", "is a TensorFlow Lite model; convert it with tf2onnx"),
)
NO_WEIGHTS = (
    "the model has no weights; export it with them (torch.onnx.export: export_params=True), or "
    "with the external data beside it"
)
_CHUNK = 1 << 24  # bytes
# The weights, their canonical form and what ONNX Runtime makes of them.
_COPIES = 3


def read_file(path: Path) -> tuple[onnx.ModelProto, str]:
    """Return the model of a file, its external data not loaded, and the SHA-256 of all its bytes.

    External data counts in the order of the files' names.

    Raises:
        InputError: The file is none, no ONNX model, damaged, larger than the memory, or files
            that it refers to are missing, too short or outside its folder.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}")
    if path.is_dir():
        found = ", ".join(sorted(each.name for each in path.glob("*.onnx"))[:5])
        raise InputError(f"{path} is a folder; give an .onnx file{found and f', such as {found}'}")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise InputError(f"{path} is empty; copy or export it again")
    for position, magic, what in _OTHERS:
        if head.startswith(magic, position):
            raise InputError(f"{path} is no ONNX model: it {what}")
    _check_memory(path, path.stat().st_size)
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InputError(
            f"{path} is damaged, truncated or no ONNX model: {error}; copy or export it again"
        ) from error
    if not model.ir_version or not model.graph.node:
        raise InputError(
            f"{path} is damaged or no ONNX model: it has no nodes; copy or export it again"
        )
    if not any(t.dims for t in model.graph.initializer) and not _computes_weights(model):
        raise InputError(NO_WEIGHTS)
    stored = _external_files(model, path)
    _check_memory(path, path.stat().st_size + sum(each.stat().st_size for each in stored))
    digest = hashlib.sha256()
    for each in (path, *stored):
        for chunk in _chunks(each):
            digest.update(chunk)
    return model, digest.hexdigest()


def with_external_data(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Load the external data of a model, in place."""
    onnx.load_external_data_for_model(model, str(folder))
    return model


def proto_digest(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of a model in memory.

    Raises:
        InputError: It refers to external data, or is too large for one message.
    """
    external = next(external_tensors(model), None)
    if external is not None:
        raise InputError(
            f"the model's tensor {external.name!r} is in another file: give the path of the "
            "model, or load it with its external data"
        )
    try:
        content = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise InputError(
            "the model is larger than 2 GB: save it with external data and give its path"
        ) from error
    return hashlib.sha256(content).hexdigest()


def _computes_weights(model: onnx.ModelProto) -> bool:
    """Return whether weights may be in nodes in place of initialisers."""
    kinds = {node.op_type for node in model.graph.node}
    return bool(model.functions or kinds & {"Constant", "ConstantOfShape"})


def _external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    stray = stray_data(model, path.parent)
    if stray is not None:
        raise InputError(
            f"{path} refers to external data outside its folder: {stray!r}; move the data beside "
            "the model and save it again"
        )
    needed: dict[Path, tuple[int, str]] = {}
    for tensor in external_tensors(model):
        file, end = _extent(tensor, path)
        needed[file] = max(needed.get(file, (0, "")), (end, tensor.name))
    for file, (end, name) in sorted(needed.items()):
        if not file.is_file():
            raise InputError(
                f"{path} keeps weights in {file.name!r}, which is missing; copy it into "
                f"{path.parent}"
            )
        if file.stat().st_size < end:
            raise InputError(
                f"{file} is truncated: tensor {name!r} ends at byte {end:,}, the file has "
                f"{file.stat().st_size:,}; copy it again"
            )
    return sorted(needed)


def _extent(tensor: TensorProto, path: Path) -> tuple[Path, int]:
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged: tensor {tensor.name!r} has no valid place in "
            f"{entries.get('location')!r}; export it again"
        ) from error
    return path.parent / entries["location"], offset + length


def _check_memory(path: Path, n_bytes: int) -> None:
    available = available_memory_bytes()
    if n_bytes * _COPIES > available:
        raise InputError(
            f"{path} has {n_bytes / 1e9:.1f} GB of weights, and reading them takes {_COPIES} "
            f"times as much memory; {available / 1e9:.1f} GB are available: use a larger machine"
        )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
