"""Latency tables: the latency of every block of a supernet on one device, as a file.

A table is JSON, one block or subnet a line, named ``SUPERNET@DEVICE-SLUG.json``. It holds the
latency of block specs in context, the overhead of an inference besides its blocks, and measured
whole subnets; it may hold subnets only. See latency_tables/README.md.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hwsearch.blocks import BlockSpec, Hyperparameter
from hwsearch.choices import Option
from hwsearch.data import places
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, parsed_json, write_atomic

FORMAT = "hwsearch latency table"
# Schema 2 added the digest.
SCHEMA, READABLE = 2, (1, 2)
FOLDER = "latency_tables"
DIGEST = "sha256"

Purpose = Literal["cover", "validate"]
PURPOSES: tuple[Purpose, ...] = ("cover", "validate")
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

    ``space`` is the digest of the full search space; ``fingerprint`` has the properties of the
    device that decide latencies. Milliseconds are ratios times ``baseline_ms``, that of the
    anchor; ``overhead_ms`` is the latency of an inference besides its blocks. ``subnets`` are in
    the order of measurement.
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
        """Return overhead plus latencies of a chain of blocks, in ms.

        Raises:
            InputError: The table lacks a block.
        """
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
        wanted = {"supernet": supernet, "search space": space, "device": device}
        given = {"supernet": self.supernet, "search space": self.space, "device": self.device}
        for what, value in wanted.items():
            if value is not None and value != given[what]:
                raise InputError(
                    f"{where} is a latency table of {what} {given[what]!r}, not of {value!r}; "
                    f"give one made by 'hwsearch profile {supernet} --device "
                    f"{device or 'DEVICE'}'"
                )

    def to_json(self) -> str:
        """Return the table as sorted text, one block or subnet a line."""
        head = {
            "format": FORMAT,
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in _TEXTS},
            "baseline_ms": self.baseline_ms,
            "overhead_ms": self.overhead_ms,
            "fingerprint": dict(sorted(self.fingerprint.items())),
            "facts": dict(sorted(self.facts.items())),
        }
        lines = [f"{json.dumps(name)}: {_dumps(value)}" for name, value in head.items()]
        ordered = sorted(self.blocks.items(), key=lambda item: _order(item[0]))
        blocks = [
            _dumps({**asdict(spec), "hyperparameters": dict(spec.hyperparameters), **asdict(cost)})
            for spec, cost in ordered
        ]
        subnets = [_dumps(asdict(subnet)) for subnet in self.subnets]
        lines += [f'"blocks": {_listed(blocks)}', f'"subnets": {_listed(subnets)}']
        digest = content_digest(json.loads("{" + ",".join(lines) + "}"))
        lines.insert(2, f'"{DIGEST}": "{digest}"')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, path: str | Path) -> None:
        """Write the table to a file atomically; missing folders are made."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from a file.

        Raises:
            InputError: The file is absent, too large, or no table that this version reads; the
                text says which entry is wrong.
        """
        file = Path(path)
        if not file.is_file():
            raise InputError(f"there is no latency table {str(path)!r}; {_AGAIN}")
        if file.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{str(path)!r} takes {file.stat().st_size / 2**20:,.0f} MB, and a latency table "
                f"at most {MAX_BYTES / 2**20:,.0f}; give a file that 'hwsearch profile' wrote"
            )
        return cls.from_json(file.read_bytes(), repr(str(path)))

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "this text") -> "LatencyTable":
        """Read what `to_json` wrote; ``where`` names the source in messages. Raises as `load`."""
        record = _parsed(text, where)
        if record.get("schema") not in READABLE:
            raise InputError(
                f"{where} is a latency table of schema {record.get('schema')!r:.80}, and this "
                f"version of hwsearch reads {' and '.join(map(str, READABLE))}; use the version "
                f"that wrote it, or {_AGAIN}"
            )
        reader = _Reader(where, record)
        blocks: dict[BlockSpec, BlockLatency] = {}
        for line in reader.lines("blocks"):
            spec = line.spec()
            if spec in blocks:
                raise line.refused("kind", f"{describe(spec)}, which is there twice", "each once")
            blocks[spec] = line.block_latency()
        table = cls(
            **{name: reader.text(name) for name in _TEXTS},
            baseline_ms=reader.number("baseline_ms"),
            overhead_ms=reader.number("overhead_ms", zero=True),
            fingerprint=reader.mapping("fingerprint"),
            facts=reader.mapping("facts", scalars=False),
            blocks=blocks,
            subnets=tuple(line.subnet_latency() for line in reader.lines("subnets")),
        )
        if record["schema"] == SCHEMA and reader.text(DIGEST) != content_digest(record):
            raise InputError(
                f"{where} was changed after it was written: its content has not the digest "
                f"{reader.text(DIGEST):.16}; copy it again, or {_AGAIN}"
            )
        return table


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


_TEXTS = ("supernet", "space", "device", "slug", "created")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reader of checked entries of one JSON object."""

    where: str
    record: Mapping[str, Any]

    def refused(self, name: str, found: object, allowed: str) -> InputError:
        return InputError(f"{self.where}: {name!r} is {found}; it must be {allowed}; {_AGAIN}")

    def _get(self, name: str, allowed: str) -> Any:
        if name not in self.record:
            raise self.refused(name, "missing", allowed)
        return self.record[name]

    def text(self, name: str) -> str:
        value = self._get(name, "text")
        if not isinstance(value, str) or not value:
            raise self.refused(name, f"{value!r:.80}", "text")
        return value

    def number(self, name: str, *, zero: bool = False) -> float:
        allowed = "a finite number " + ("from 0 up" if zero else "above 0")
        value = self._get(name, allowed)
        number = math.nan
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE:
            number = float(value)
        if not (number > 0 or (zero and number == 0)):
            raise self.refused(name, f"{value!r:.80}", allowed)
        return number

    def count(self, name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refused(name, f"{value!r:.80}", "a whole number from 1 up")
        return value

    def mapping(self, name: str, *, scalars: bool = True) -> dict[str, Any]:
        value = self._get(name, "an object")
        plain = isinstance(value, dict)
        if plain and scalars:
            plain = all(isinstance(each, str | int | float) for each in value.values())
        if not plain:
            raise self.refused(name, f"{value!r:.80}", "an object of texts and numbers")
        return dict(value)

    def lines(self, name: str) -> "list[_Reader]":
        value = self._get(name, "a list of objects")
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.refused(name, f"{value!r:.80}", "a list of objects")
        return [
            _Reader(f"{self.where}, {name} line {number}", each)
            for number, each in enumerate(value, start=1)
        ]

    def spec(self) -> BlockSpec:
        sides = self._get("input_shape", "a list of whole numbers")
        if not isinstance(sides, list):
            raise self.refused("input_shape", f"{sides!r:.80}", "a list of whole numbers")
        hyperparameters: dict[str, Hyperparameter] = self.mapping("hyperparameters")
        return BlockSpec(
            kind=self.text("kind"),
            hyperparameters=tuple(sorted(hyperparameters.items())),
            input_shape=tuple(self.count("input_shape", side) for side in sides),
            dtype=self.text("dtype"),
        )

    def block_latency(self) -> BlockLatency:
        return BlockLatency(
            latency_ms=self.number("latency_ms"),
            count=self.count("count", self._get("count", "a whole number")),
            spread_ms=self.number("spread_ms", zero=True),
        )

    def subnet_latency(self) -> SubnetLatency:
        purposes: dict[str, Purpose] = {each: each for each in PURPOSES}
        purpose = purposes.get(self.text("purpose"))
        if purpose is None:
            raise self.refused("purpose", repr(self.text("purpose")), " or ".join(purposes))
        numbers = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")
        return SubnetLatency(
            architecture=self.mapping("architecture"),
            purpose=purpose,
            **{name: self.number(name) for name in numbers},
        )


def _parsed(text: str | bytes, where: str) -> Mapping[str, Any]:
    try:
        record = parsed_json(text)
    except ValueError as error:
        raise InputError(f"{where} is no latency table: {error}; {_AGAIN}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{where} is no latency table: it has no 'format': {FORMAT!r}; {_AGAIN}")
    return record


def _order(spec: BlockSpec) -> tuple[str, tuple[int, ...], str, str]:
    return spec.kind, spec.input_shape, json.dumps(spec.hyperparameters), spec.dtype


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _listed(lines: list[str]) -> str:
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
