"""Latency tables: the latency of every block of a supernet on one device, as a file.

A table is JSON, one block or subnet a line, named ``SUPERNET@DEVICE-SLUG.json``. It holds the
latency of block specs in context, the overhead of an inference besides its blocks, and measured
whole subnets; it may hold subnets only. See latency_tables/README.md.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from hwsearch.blocks import BlockSpec
from hwsearch.choices import Option
from hwsearch.data import places
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded, write_atomic

FORMAT = "hwsearch latency table"
# Schema 2 added the digest.
SCHEMA, READABLE = 2, (1, 2)
FOLDER = "latency_tables"
DIGEST = "sha256"

Purpose = Literal["cover", "validate"]
PURPOSES = get_args(Purpose)
_SHOWN = 3
_HUGE = 1e300
_AGAIN = "make it again by 'hwsearch profile SUPERNET --device DEVICE'"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLatency:
    """Latency of a block inside a network: its share of the latency of a subnet.

    It was estimated from ``count`` subnets; ``spread_ms`` is the standard deviation among them.
    """

    latency_ms: float
    count: int = 1
    spread_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetLatency:
    """Measured latency of a whole subnet; see `hwsearch.devices.base.Latency`.

    ``ratio`` is relative to the anchor in the same rounds, ``latency_ms`` ratio x baseline, each
    with its 95% interval. The table was made from subnets of purpose ``"cover"`` and compared with
    those of purpose ``"validate"``.
    """

    architecture: Mapping[str, Option]
    latency_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    purpose: Purpose = "cover"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Latencies of one supernet on one device, ``device`` in full and as ``slug`` for file names.

    ``space`` is the digest of the full space of structures, without precision; ``fingerprint``
    has the properties of the device that decide latencies. Milliseconds are ratios times
    ``baseline_ms``, that of the anchor; ``overhead_ms`` is the latency of an inference besides its
    blocks. ``subnets`` are in the order of measurement.
    """

    supernet: str
    space: str
    device: str
    slug: str
    fingerprint: Mapping[str, str | int]
    created: str
    baseline_ms: float
    overhead_ms: float = 0.0
    blocks: Mapping[BlockSpec, BlockLatency] = field(default_factory=dict)
    subnets: tuple[SubnetLatency, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def latency_ms(self, specs: Iterable[BlockSpec]) -> float:
        """Return overhead plus latencies of a chain of blocks, in ms; raises as `check_covers`."""
        chain = list(specs)
        self.check_covers(chain)
        return self.overhead_ms + sum(self.blocks[spec].latency_ms for spec in chain)

    def missing(self, specs: Iterable[BlockSpec]) -> list[BlockSpec]:
        """Return the specs that the table lacks, each once, in their order."""
        return [spec for spec in dict.fromkeys(specs) if spec not in self.blocks]

    def check_covers(self, specs: Iterable[BlockSpec], rules: str = "") -> None:
        """Raise InputError, with the command that completes the table, if it lacks a spec.

        ``rules`` are the options that restrict the supernet to these specs, for that command.
        """
        lacking = self.missing(specs)
        if lacking:
            first = ", ".join(describe(spec) for spec in lacking[:_SHOWN])
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            raise InputError(
                f"the latency table of {self.supernet} on {self.device} lacks {len(lacking)} "
                f"block specs: {first}{more}; complete it by 'hwsearch profile "
                f"{self.supernet} --device {self.device}{rules and ' '}{rules}'"
            )

    def check_made_for(
        self, supernet: str, space: str, device: str | None = None, where: str = "this table"
    ) -> None:
        """Raise InputError for a table of another supernet, space (digest) or device."""
        for what, own, wanted in (
            ("supernet", self.supernet, supernet),
            ("search space", self.space, space),
            ("device", self.device, device or self.device),
        ):
            if own != wanted:
                raise InputError(
                    f"{where} is a latency table of {what} {own!r}, not of {wanted!r}; give one "
                    f"made by 'hwsearch profile {supernet} --device {device or 'DEVICE'}'"
                )

    def to_json(self) -> str:
        """Return the table as sorted text, one block or subnet a line."""
        ordered = sorted(
            self.blocks,
            key=lambda s: (s.kind, s.input_shape, json.dumps(s.hyperparameters), s.dtype),
        )
        record = {
            "format": FORMAT,
            "schema": SCHEMA,
            DIGEST: "",
            **{name: getattr(self, name) for name in _TEXTS},
            "baseline_ms": self.baseline_ms,
            "overhead_ms": self.overhead_ms,
            "fingerprint": dict(sorted(self.fingerprint.items())),
            "facts": dict(sorted(self.facts.items())),
            "blocks": [spec.to_record() | asdict(self.blocks[spec]) for spec in ordered],
            "subnets": [asdict(subnet) for subnet in self.subnets],
        }
        record[DIGEST] = content_digest(record)
        lines = [f"{json.dumps(name)}: {_in_lines(value)}" for name, value in record.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, path: str | Path) -> None:
        """Write the table to a file atomically; missing folders are made."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from a file; raise InputError, which names a wrong entry, for another."""
        where = repr(str(path))
        if not Path(path).is_file():
            raise InputError(f"there is no latency table {where}; {_AGAIN}")
        try:
            text = read_bounded(Path(path), MAX_BYTES)
        except ValueError as error:
            raise InputError(f"{where} is no latency table: {error}; {_AGAIN}") from error
        return cls.from_json(text, where)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "this text") -> "LatencyTable":
        """Read what `to_json` wrote; ``where`` names the source in messages. Raises as `load`."""
        try:
            record = parsed_json(text)
        except ValueError as error:
            raise InputError(f"{where} is no latency table: {error}; {_AGAIN}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise InputError(
                f"{where} is no latency table: it has no 'format': {FORMAT!r}; {_AGAIN}"
            )
        if record.get("schema") not in READABLE:
            raise InputError(
                f"{where} is a latency table of schema {record.get('schema')!r:.80}, and this "
                f"version of hwsearch reads {' and '.join(map(str, READABLE))}; use the version "
                f"that wrote it, or {_AGAIN}"
            )
        sealed = {DIGEST: _TEXT} if record["schema"] == SCHEMA else {}
        given = _checked(record, _TABLE | sealed, where)
        blocks: dict[BlockSpec, BlockLatency] = {}
        for number, line in enumerate(given.pop("blocks"), start=1):
            here = f"{where}, blocks line {number}"
            spec = BlockSpec.from_record(_checked(line, _SPEC, here))
            if spec in blocks:
                raise InputError(f"{here}: {describe(spec)} is there twice; {_AGAIN}")
            blocks[spec] = BlockLatency(**_checked(line, _BLOCK, here))
        subnets = tuple(
            SubnetLatency(**_checked(line, _SUBNET, f"{where}, subnets line {number}"))
            for number, line in enumerate(given.pop("subnets"), start=1)
        )
        digest = given.pop(DIGEST, None)
        if digest is not None and digest != content_digest(record):
            raise InputError(
                f"{where} was changed after it was written: its content has not the digest "
                f"{digest:.16}; copy it again, or {_AGAIN}"
            )
        return cls(**given, blocks=blocks, subnets=subnets)


def content_digest(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a table's content without its digest, in hex."""
    content = {name: value for name, value in record.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_name(supernet: str, slug: str) -> str:
    """Return the file name of a supernet's table of a device."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', supernet)}@{slug}.json"


def find_table(supernet: str, slug: str) -> Path | None:
    """Return the table of a supernet and a device: the user's own, else the shipped one."""
    return next(iter(find_tables(supernet, slug)), None)


def find_tables(supernet: str, slug: str) -> list[Path]:
    """Return every table of a supernet and a device, in the order of `find_table`."""
    paths = (root / file_name(supernet, slug) for root in places(FOLDER))
    return [path for path in paths if path.is_file()]


def describe(spec: BlockSpec) -> str:
    """Return a readable block spec: ``conv(kernel=3, out=40) on 3x32x32``."""
    given = ", ".join(f"{name}={value}" for name, value in spec.hyperparameters)
    dtype = "" if spec.dtype == "float32" else f" of {spec.dtype}"
    return f"{spec.kind}({given}) on {'x'.join(map(str, spec.input_shape))}{dtype}"


class _Kind(NamedTuple):
    """What an entry of a file may be, in words and as a condition."""

    allowed: str
    accepts: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


_TEXT = _Kind("text", lambda v: isinstance(v, str) and v != "")
_POSITIVE = _Kind("a finite number above 0", lambda v: _is_number(v) and v > 0)
_FROM_ZERO = _Kind("a finite number from 0 up", lambda v: _is_number(v) and v >= 0)
_COUNT = _Kind("a whole number from 1 up", lambda v: type(v) is int and v > 0)
_COUNTS = _Kind(
    "a list of whole numbers from 1 up",
    lambda v: isinstance(v, list) and all(map(_COUNT.accepts, v)),
)
_OBJECT = _Kind("an object", lambda v: isinstance(v, dict))
_SCALARS = _Kind(
    "an object of texts and numbers",
    lambda v: isinstance(v, dict) and all(isinstance(e, str | int | float) for e in v.values()),
)
_LINES = _Kind(
    "a list of objects", lambda v: isinstance(v, list) and all(isinstance(e, dict) for e in v)
)
_PURPOSE = _Kind(" or ".join(PURPOSES), lambda v: v in PURPOSES)

_TEXTS = ("supernet", "space", "device", "slug", "created")
_TABLE = dict.fromkeys(_TEXTS, _TEXT) | {
    "baseline_ms": _POSITIVE,
    "overhead_ms": _FROM_ZERO,
    "fingerprint": _SCALARS,
    "facts": _OBJECT,
    "blocks": _LINES,
    "subnets": _LINES,
}
_SPEC = {"kind": _TEXT, "hyperparameters": _SCALARS, "input_shape": _COUNTS, "dtype": _TEXT}
_BLOCK = {"latency_ms": _POSITIVE, "count": _COUNT, "spread_ms": _FROM_ZERO}
_RATIOS = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")
_SUBNET = {"architecture": _SCALARS, "purpose": _PURPOSE} | dict.fromkeys(_RATIOS, _POSITIVE)


def _checked(record: Mapping[str, Any], kinds: Mapping[str, _Kind], where: str) -> dict[str, Any]:
    """Return the entries of a record that have a kind; raise InputError for another value."""
    for name, kind in kinds.items():
        if name not in record or not kind.accepts(record[name]):
            found = f"{record[name]!r:.80}" if name in record else "missing"
            raise InputError(f"{where}: {name!r} is {found}; it must be {kind.allowed}; {_AGAIN}")
    return {
        name: float(record[name]) if kind in (_POSITIVE, _FROM_ZERO) else record[name]
        for name, kind in kinds.items()
    }


def _in_lines(value: Any) -> str:
    """Return JSON in which every item of a list of objects has a line of its own."""
    if not (isinstance(value, list) and value):
        return json.dumps(value, allow_nan=False)
    return "[\n" + ",\n".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"
