"""The folder of an elastic model: graph, statistics, order of units, search space and card."""

import errno
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import SafetensorError

from hwsearch.data import user_data
from hwsearch.elastic import wire
from hwsearch.elastic.choices import ElasticSpace
from hwsearch.elastic.graph import Graph, Origin, Structure
from hwsearch.errors import InputError
from hwsearch.files import (
    DISK_ERRNOS,
    MAX_BYTES,
    parsed_json,
    read_bounded,
    sha256_of,
    staged_folder,
    write_atomic,
)
from hwsearch.supernets.interface import Card, ImagePreprocessing, InputSpec, TensorSpec

SCHEMA = 1
SUFFIX = ".elastic"
MODEL, GRAPH, UNITS, SPACE, CARD = (
    "model.onnx", "graph.json", "units.safetensors", "space.json", "card.json"
)  # fmt: skip
STATISTICS = "statistics.safetensors"
REPAIRED = "repaired"  # folder of weights that were solved; they can be solved again
_LARGEST = 64 * MAX_BYTES  # bytes of a JSON file: a graph of many nodes names all of its values
_MAX_MODEL = 2**31 - 1  # of a protobuf message
_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contents:
    """What an elastic model's folder holds, besides statistics.

    Attributes:
        name: The model's name, for users.
        graph: The given model in canonical form.
        orders: Group -> its units, most important first.
        losses: Name -> share of the outputs' variance lost; see `ElasticNetwork`.
        space: The search space, as `ElasticSpace.to_dict` describes it.
        spec: Inputs and outputs.
        card: Name, licence and source.
        model_digest: SHA-256 of the given model.
        data_digest: Digest of the samples that statistics come from.
        facts: Further facts, as JSON-ready values: the summary, numbers of samples, versions.
    """

    name: str
    graph: Graph
    orders: Mapping[str, NDArray[np.int64]]
    losses: Mapping[str, NDArray[np.float64]]
    space: Mapping[str, Any]
    spec: InputSpec
    card: Card
    model_digest: str
    data_digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def cache_folder(name: str, key: str) -> Path:
    """Return the folder of an elastic model in the user's data, by name and digest.

    Two models of one name, or one model with two sets of data, have different folders.
    """
    usable = _NOT_IN_NAMES.sub("-", name).strip(".-") or "model"
    return user_data() / "elastic" / f"{usable}-{key[:16]}{SUFFIX}"


# No permission, a file in place of a folder, a file system of the kernel.
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


def write_folder(
    final: Path, contents: Contents, statistics: Callable[[Path], None] | None = None
) -> None:
    """Write an elastic model's folder; a complete one or none appears under the final name.

    Args:
        final: An existing elastic model there is replaced.
        contents: What to write.
        statistics: Writes the statistics to a file.

    Raises:
        InputError: Another thing than an elastic model has that name, the model is too large for
            a file, or the disk is full or read-only.
    """
    check_place(final)
    with _clear_errors(final), staged_folder(final) as folder:
        write_atomic(folder / MODEL, _model_bytes(contents.graph))
        write_atomic(folder / GRAPH, json.dumps(_graph_facts(contents.graph)))
        arrays: dict[str, NDArray[Any]] = {
            **{f"order:{n}": np.ascontiguousarray(a) for n, a in contents.orders.items()},
            **{f"lost:{n}": np.ascontiguousarray(a) for n, a in contents.losses.items()},
        }
        write_atomic(folder / UNITS, safetensors.numpy.save(arrays))
        write_atomic(folder / SPACE, json.dumps(contents.space, indent=1) + "\n")
        if statistics is not None:
            statistics(folder / STATISTICS)
        card = {
            "schema": SCHEMA,
            "name": contents.name,
            "model": contents.model_digest,
            "data": contents.data_digest,
            "input": contents.spec.to_dict(),
            "card": asdict(contents.card),
            "facts": dict(contents.facts),
            "files": {
                path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()
            },
        }
        write_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")


def check_place(final: Path) -> None:
    """Refuse a name that is taken, or in a place where no folder can be written.

    Raises:
        InputError: See above.
    """
    if final.exists() and not (final / CARD).is_file():
        raise InputError(
            f"{str(final)!r} exists and is no elastic model; give a name that is free"
        )
    with _clear_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=final.parent, prefix=f".{final.name}."):
            pass


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of an elastic model's folder.

    Raises:
        InputError: It is none, or of another schema.
    """
    path = folder / CARD
    try:
        card = parsed_json(read_bounded(path, _LARGEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{str(folder)!r} is no elastic model: it has no {CARD}; make one with "
            "hwsearch elastify MODEL --data DATA --out NAME.elastic"
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{CARD} cannot be read: {error}") from error
    if not isinstance(card, dict) or not isinstance(card.get("files"), dict):
        raise _damaged(folder, f"{CARD} is no card")
    if card.get("schema") != SCHEMA:
        raise InputError(
            f"{str(folder)!r} has schema {card.get('schema')!r}; this version of hwsearch reads "
            f"{SCHEMA}: make the elastic model again"
        )
    return card


def read_folder(folder: Path) -> Contents:
    """Read an elastic model's folder; every file is compared with its digest.

    Raises:
        InputError: It is no elastic model, of another schema, or damaged.
    """
    card = read_card(folder)
    for name, digest in card["files"].items():
        path = folder / name
        if path.name != name or not path.is_file():
            raise _damaged(folder, f"{name} is missing")
        if sha256_of(path) != digest:
            raise _damaged(folder, f"{name} is not the file that its card describes")
    try:
        arrays = safetensors.numpy.load_file(folder / UNITS)
        return Contents(
            name=str(card["name"]),
            graph=_read_graph(folder),
            orders=_prefixed(arrays, "order:"),
            losses=_prefixed(arrays, "lost:"),
            space=parsed_json(read_bounded(folder / SPACE, _LARGEST)),
            spec=_input_spec(card["input"]),
            card=Card(**card["card"]),
            model_digest=str(card["model"]),
            data_digest=str(card["data"]),
            facts=card["facts"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error


def check_fit(structure: Structure, contents: Contents) -> ElasticSpace:
    """Return the search space; raise InputError if the contents do not fit the structure."""
    sizes = {group.name: group.size for group in structure.groups}
    for name, order in contents.orders.items():
        if name not in sizes or not np.array_equal(np.sort(order), np.arange(sizes[name])):
            raise InputError(
                f"elastic model {contents.name!r} has an order of the units of {name!r} that does "
                "not fit what the analysis of its graph finds; it was made by another version of "
                "hwsearch: make it again"
            )
    return ElasticSpace.from_dict(structure, contents.space)


def _model_bytes(graph: Graph) -> bytes:
    size = sum(array.nbytes for array in graph.weights.values())
    if size + graph.proto.ByteSize() > _MAX_MODEL:
        raise InputError(
            f"the model has {size / 1e9:.1f} GB of weights, and one ONNX file holds 2.1 at most; "
            "give a smaller model"
        )
    content = wire.model(
        graph.proto,
        (node.SerializeToString(deterministic=True) for node in graph.proto.graph.node),
        (wire.tensor(name, array) for name, array in graph.weights.items()),
        graph.proto.graph.input,
        graph.proto.graph.output,
    )
    return bytes(content)


def _graph_facts(graph: Graph) -> dict[str, Any]:
    return {
        "digest": graph.digest,
        "notes": list(graph.notes),
        "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
        "origins": {name: asdict(origin) for name, origin in graph.origins.items()},
    }


def _read_graph(folder: Path) -> Graph:
    facts = parsed_json(read_bounded(folder / GRAPH, _LARGEST))
    proto = onnx.load_model_from_string((folder / MODEL).read_bytes())
    weights = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    del proto.graph.initializer[:]
    origins = {
        name: Origin(
            name=origin["name"],
            permutation=tuple(origin["permutation"]),
            norm=tuple(origin["norm"]),
        )
        for name, origin in facts["origins"].items()
    }
    return Graph(
        proto=proto,
        weights=weights,
        origins=origins,
        shapes={name: tuple(shape) for name, shape in facts["shapes"].items()},
        digest=facts["digest"],
        notes=tuple(facts["notes"]),
    )


def _prefixed(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _input_spec(content: Mapping[str, Any]) -> InputSpec:
    """Return the spec that `InputSpec.to_dict` described."""
    inputs = [{**each, "shape": tuple(each["shape"])} for each in content["inputs"]]
    known = {**content, "inputs": tuple(TensorSpec(**each) for each in inputs)}
    image = content["preprocessing"]
    if image is not None:
        lists = {name: tuple(image[name]) for name in ("mean", "std")}
        known["preprocessing"] = ImagePreprocessing(**{**image, **lists})
    known |= {name: tuple(content[name]) for name in ("outputs", "classes")}
    return InputSpec(**known)


@contextmanager
def _clear_errors(final: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an InputError; nothing half-written stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*DISK_ERRNOS, *_NO_PLACE):
            raise
        raise InputError(
            f"the elastic model cannot be written to {str(final)!r}: {error.strerror}. Nothing "
            "was left there; free some space, or give another folder"
        ) from error


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(
        f"elastic model {str(folder)!r} is damaged: {reason}. Remove it and make it again with "
        "hwsearch elastify"
    )
