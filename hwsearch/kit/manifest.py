"""What a kit holds, as the JSON file in it says; read on both sides, so it needs nothing."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hwsearch.blocks import BlockSpec
from hwsearch.errors import InputError
from hwsearch.files import parsed_json

FORMAT = "hwsearch kit"
SCHEMA = 1
NAME = "kit.json"
MAX_MODEL_BYTES = 2**31  # of a protobuf message, which an ONNX file is
PRECISION = "fp32"  # of all models of kits
TABLE, CONFIRM = "table", "confirm"
KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KitModel:
    """One model of a kit.

    Attributes:
        key: Of its architecture; it names the file.
        architecture: Its active choices.
        sha256: Of the file, hex.
        n_bytes: Size of the file.
        blocks: Name of every block of the chain -> number of its spec in the manifest; empty
            where the subnet is no chain.
        shipped: SHA-256 of the run's own model file, for a kit that confirms; else empty.
    """

    key: str
    architecture: Mapping[str, Any]
    sha256: str
    n_bytes: int
    blocks: Mapping[str, int]
    shipped: str = ""

    def __post_init__(self) -> None:
        # The key becomes a file name on a stranger's machine, and a file may say anything.
        key, size = (getattr(self, name) for name in ("key", "n_bytes"))
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise InputError(f"a model of the kit is named {key!r:.80}, which is no key")
        if not isinstance(size, int) or not 0 < size <= MAX_MODEL_BYTES:
            raise InputError(
                f"model {key} of the kit takes {size!r} bytes; 1 to {MAX_MODEL_BYTES} are possible"
            )

    @property
    def member(self) -> str:
        """Its name in the kit."""
        return f"models/{self.key}.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a kit measures, and for what.

    Attributes:
        purpose: `TABLE` for what a search predicts from, `CONFIRM` for the candidates of one.
        supernet: Name on the supernet's card.
        space: Digest of its full search space.
        anchor: SHA-256 of the anchor model.
        devices: Name -> ``module:attribute`` of every device that the kit can measure on.
        specs: Block specs, which models refer to by number.
        models: In the order in which they are measured.
        settings: How precisely, as `hwsearch.devices.protocol.MeasureSettings` has it.
        run: Digest of the run that candidates belong to; else empty.
        device: The device that candidates are to be measured on, as written down; else empty.
        fingerprint: Digest of that device's fingerprint; else empty.
        version: Of hwsearch.
    """

    purpose: str
    supernet: str
    space: str
    anchor: str
    devices: Mapping[str, str]
    specs: tuple[BlockSpec, ...]
    models: tuple[KitModel, ...]
    settings: Mapping[str, Any]
    run: str = ""
    device: str = ""
    fingerprint: str = ""
    version: str = ""

    @property
    def digest(self) -> str:
        """What names this kit: equal for kits that measure the same, whoever made them."""
        record = self._record()
        del record["version"]
        text = json.dumps(record, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Write it as text."""
        return json.dumps({"format": FORMAT, "schema": SCHEMA, **self._record()}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Manifest":
        """Read what `to_json` wrote.

        Args:
            text: JSON.
            where: What is read, for messages.

        Raises:
            InputError: It is no manifest, or one of another schema.
        """
        try:
            record = parsed_json(text)
            named, schema = record.pop("format"), record.pop("schema")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where} is no kit of hwsearch: {_NAMED}{error}") from error
        if named != FORMAT:
            raise InputError(f"{where} is no kit of hwsearch, but {named!r:.80}")
        if schema != SCHEMA:
            raise InputError(
                f"{where} is a kit of schema {schema!r}, and this version of hwsearch reads "
                f"schema {SCHEMA}; use the version that made it, or make it again"
            )
        try:
            specs = tuple(_spec(each) for each in record.pop("specs"))
            models = tuple(KitModel(**each) for each in record.pop("models"))
            return cls(**record, specs=specs, models=models)
        except InputError as error:
            raise InputError(f"{where} is damaged: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is damaged: {_NAMED}{error}") from error

    def _record(self) -> dict[str, Any]:
        record = {name: getattr(self, name) for name in self.__slots__}
        specs = [{**asdict(s), "hyperparameters": dict(s.hyperparameters)} for s in self.specs]
        return {**record, "specs": specs, "models": [asdict(model) for model in self.models]}


_NAMED = f"its {NAME}: "


def _spec(record: Mapping[str, Any]) -> BlockSpec:
    return BlockSpec(
        kind=record["kind"],
        hyperparameters=tuple(sorted(record["hyperparameters"].items())),
        input_shape=tuple(record["input_shape"]),
        dtype=record["dtype"],
    )
