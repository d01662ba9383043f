"""The manifest of a kit, which lists its subnets as JSON, and reading of its checked models."""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hwsearch.blocks import BlockSpec
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, digest_of_text, parsed_json
from hwsearch.quantization import FP16, FP32, INT8, MIXED

FORMAT = "hwsearch kit"
SCHEMA = 1
NAME = "kit.json"
MAX_MODEL_BYTES = 2**31  # of a protobuf message, which an ONNX file is
# A device that takes the files of a precision, for messages.
EXAMPLES = {
    FP32: "ort-cpu:threads=4",
    FP16: "ort-cuda:precision=fp16",
    INT8: "ort-cpu:threads=4,precision=int8",
    MIXED: "ort-cpu:threads=4,precision=mixed",
}
TABLE, CONFIRM, PROFILE = "table", "confirm", "profile"
KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetEntry:
    """A subnet to measure, by the key and the active choices of its architecture.

    ``blocks`` is block name -> number of its spec in the plan; empty where it is no chain.
    """

    key: str
    architecture: Mapping[str, Any]
    blocks: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KitModel(SubnetEntry):
    """A subnet whose model is in a kit; raise InputError for an unusable key or size of a file.

    ``shipped`` is the SHA-256 of the run's own model file in a kit that confirms; else empty.
    """

    sha256: str
    n_bytes: int
    shipped: str = ""

    def __post_init__(self) -> None:
        key, size = (getattr(self, name) for name in ("key", "n_bytes"))
        if not isinstance(key, str) or not KEY.fullmatch(key):  # it becomes a file name
            raise InputError(f"a model of the kit is named {key!r:.80}, which is no key")
        if not isinstance(size, int) or not 0 < size <= MAX_MODEL_BYTES:
            raise InputError(
                f"model {key} of the kit takes {size!r} bytes; 1 to {MAX_MODEL_BYTES} are possible"
            )

    @property
    def member(self) -> str:
        """Return the name of the model file in the kit."""
        return f"models/{self.key}.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The subnets to measure for one supernet, in order, and their block specs, by number.

    ``purpose`` is `TABLE` for a search by prediction, `CONFIRM` for the candidates of a search
    (``run`` is then its digest), `PROFILE` for a latency table made on this machine. ``space`` is
    the digest of the full space of structures.
    """

    purpose: str
    supernet: str
    space: str
    specs: tuple[BlockSpec, ...]
    models: tuple[SubnetEntry, ...]
    run: str = ""

    @property
    def digest(self) -> str:
        """Return the digest that results to be continued must have."""
        return f"{self.purpose} {self.supernet} {self.space}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Plan):
    """The content of a kit.

    Attributes:
        anchor: SHA-256 of the anchor model.
        devices: Name -> ``module:attribute`` of every device that the kit can measure on.
        settings: Fields of `hwsearch.devices.MeasureSettings`.
        precision: That of the models, and for int8 the type of their activations, which depends
            on the processor.
        device, fingerprint: The device on which candidates are to be measured, and the digest of
            its fingerprint; else empty.
    """

    anchor: str
    devices: Mapping[str, str]
    models: tuple[KitModel, ...]
    settings: Mapping[str, Any]
    precision: str = FP32
    activations: str = ""
    device: str = ""
    fingerprint: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        if self.precision not in EXAMPLES:
            raise InputError(f"precision {self.precision!r:.80} is unknown")

    @property
    def digest(self) -> str:
        """Return the identity of a kit: equal for kits with the same models and settings."""
        record = self._record()
        del record["version"]
        return digest_of_text(json.dumps(record, sort_keys=True))

    def to_json(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps({"format": FORMAT, "schema": SCHEMA, **self._record()}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Manifest":
        """Return the manifest in a JSON text; raise InputError for another text or schema."""
        try:
            record = parsed_json(text)
            named, schema = record.pop("format"), record.pop("schema")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where} is no kit of hwsearch: its {NAME}: {error}") from error
        if named != FORMAT:
            raise InputError(f"{where} is no kit of hwsearch, but {named!r:.80}")
        if schema != SCHEMA:
            raise InputError(
                f"{where} is a kit of schema {schema!r}, and this version of hwsearch reads "
                f"schema {SCHEMA}; use the version that made it, or make it again"
            )
        try:
            specs = tuple(map(BlockSpec.from_record, record.pop("specs")))
            models = tuple(KitModel(**each) for each in record.pop("models"))
            return cls(**record, specs=specs, models=models)
        except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is damaged: its {NAME}: {error}") from error

    def _record(self) -> dict[str, Any]:
        return {**asdict(self), "specs": [spec.to_record() for spec in self.specs]}


# Errors of zipfile for missing or damaged content, and for unknown compressions and encryption.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError),
    *(KeyError, ValueError, RuntimeError),
)


def read_manifest(kit: Path) -> Manifest:
    """Return the manifest of a kit; raise InputError where it is missing or damaged."""
    where = repr(str(kit))
    if not kit.is_file():
        raise InputError(f"there is no kit {where}; make one by 'hwsearch kit SUPERNET'")
    try:
        with zipfile.ZipFile(kit) as archive, archive.open(NAME) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"its {NAME} has over {MAX_BYTES} bytes")
    except _UNREADABLE as error:
        raise InputError(f"{where} is no kit of hwsearch: {error}") from error
    return Manifest.from_json(content, where)


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
                    with archive.open(model.member) as packed:
                        content = packed.read(model.n_bytes + 1)  # no more, against zip bombs
                    if len(content) != model.n_bytes:
                        raise ValueError(f"it has not the {model.n_bytes} bytes that {NAME} says")
                    if hashlib.sha256(content).hexdigest() != model.sha256:
                        raise ValueError(f"it is not the file whose SHA-256 {NAME} says")
                    paths[model.key].write_bytes(content)
                except _UNREADABLE as error:
                    problem = str(error) or type(error).__name__  # EOFError has no text
                    raise InputError(
                        f"model {model.key} of this kit is damaged: {problem}; copy the kit "
                        "again, or make it again"
                    ) from error
        yield paths
