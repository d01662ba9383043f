"""The results file: a latency table with all measurements and the progress of their plan."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_origin

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.base import Latency
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded
from hwsearch.kit.manifest import Plan
from hwsearch.tables import LatencyTable, content_digest

FACTS = "kit"
_ARRAYS = ("ratios", "counted", "times_ms")
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class KitFacts:
    """The measurements in a results file, and their plan.

    Attributes:
        digest: Of the plan.
        run: Digest of the run whose candidates were measured; else empty.
        command: Continues the measurement.
        missing: Keys of the models that are not measured yet.
        failed: Key -> reason why the model has no latency.
        latencies: Key -> `Latency` as plain numbers.
        profiles: Key -> ``blocks_ms`` and ``nodes``; see
            `hwsearch.prediction.block_times.Observed`.
        content: Digest of the file's content.
    """

    digest: str
    purpose: str
    run: str
    command: str
    total: int
    missing: list[str]
    failed: dict[str, str]
    latencies: dict[str, dict[str, Any]]
    profiles: dict[str, dict[str, Any]]
    content: str = ""

    def latency(self, key: str, where: str) -> Latency:
        """Return a model's latency without single runs; raise InputError for an invalid number."""
        return _latency(self.latencies[key], f"{where}, model {key}")


def sealed(table: LatencyTable, facts: KitFacts) -> LatencyTable:
    """Return the table with the facts of its measurement, and a digest of its content."""
    record = {field.name: getattr(facts, field.name) for field in fields(facts)}
    whole = replace(table, facts={**table.facts, FACTS: {**record, "content": ""}})
    record["content"] = _digest(json.loads(whole.to_json()))
    return replace(table, facts={**table.facts, FACTS: record})


def read_results(path: Path) -> tuple[LatencyTable, KitFacts]:
    """Return the table and the facts in a results file, complete or not; raise InputError."""
    where = repr(str(path))
    try:
        text = read_bounded(path, MAX_BYTES)
        record = parsed_json(text)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {where}; give what a kit wrote") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{where} was not written by a kit: {error}") from error
    kept = record.get("facts") if isinstance(record, dict) else None
    given = kept.get(FACTS) if isinstance(kept, dict) else None
    if not isinstance(given, dict):
        raise InputError(
            f"{where} was not written by a kit: it says nothing of one; make one by "
            "'hwsearch kit SUPERNET --out kit.pyz' and run it on the device"
        )
    wanted: dict[str, Any] = {f.name: get_origin(f.type) or f.type for f in fields(KitFacts)}
    if any(not isinstance(given.get(name), kind) for name, kind in wanted.items()):
        raise InputError(f"{where} is damaged: what it says of its kit is not complete")
    if given["content"] != _digest(record):
        raise InputError(
            f"{where} was changed after the kit wrote it: its content does not have the digest "
            f"{given['content'][:12]}; copy it again from the device, or measure again"
        )
    facts = KitFacts(**{name: given[name] for name in wanted})
    return LatencyTable.from_json(text, where), facts


def check_complete(facts: KitFacts, path: Path) -> None:
    """Raise InputError where results are missing, or all models failed."""
    if facts.missing:
        raise InputError(
            f"{str(path)!r} is not complete: {len(facts.missing)} of {facts.total} models are "
            f"still to be measured; go on there by '{facts.command}'"
        )
    if len(facts.failed) == facts.total:
        reason = next(iter(facts.failed.values()), "it had none")
        raise InputError(f"{str(path)!r} holds no latency: every model failed; {reason}")


def check_plan(facts: KitFacts, plan: Plan, where: str, advice: str) -> None:
    """Raise InputError for results of another plan."""
    if facts.digest != plan.digest:
        raise InputError(
            f"{where} was measured by another kit or for another supernet (its digest is "
            f"{facts.digest}, this one's {plan.digest}); {advice}"
        )


def latency_record(latency: Latency) -> dict[str, Any]:
    """Return a latency as JSON values, without the times of single runs."""
    plain = {f.name: getattr(latency, f.name) for f in fields(latency) if f.name not in _ARRAYS}
    counted = None if latency.counted is None else latency.counted.tolist()
    lists = {"warnings": list(latency.warnings), "ratios": latency.ratios.tolist()}
    return {**plain, **lists, "counted": counted}


def _latency(record: Mapping[str, Any], where: str) -> Latency:
    known = {field.name for field in fields(Latency)} - {"times_ms"}
    if known - record.keys():
        raise InputError(f"{where}: {', '.join(sorted(known - record.keys()))} is missing")
    for name in known - {"counted"}:
        for number in record[name] if name == "ratios" else [record[name]]:
            _check_number(name, number, where)
    expected = record["ratio"] * record["baseline_ms"]
    if not math.isclose(record["latency_ms"], expected, rel_tol=_CLOSE):
        raise InputError(f"{where}: latency_ms is not its ratio times the anchor's baseline")
    ratios = np.array(record["ratios"], dtype=np.float64)
    read = {
        "warnings": tuple(record["warnings"]),
        "ratios": ratios,
        "counted": _counted(record["counted"], len(ratios), where),
        "times_ms": np.empty((len(ratios), 0)),
    }
    return Latency(**{name: record[name] for name in known} | read)


def _counted(given: object, n_rounds: int, where: str) -> NDArray[np.bool_] | None:
    if given is None:
        return None
    if not isinstance(given, list) or [type(each) for each in given] != [bool] * n_rounds:
        raise InputError(f"{where}: counted is not a truth value for each of {n_rounds} rounds")
    return np.array(given, dtype=np.bool_)


def _check_number(name: str, number: object, where: str) -> None:
    """Raise InputError for a number that is no time; spreads and shares may be 0."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return
    zero_is_fine = name in ("cv", "waited", "cost_s")
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_is_fine):
        raise InputError(f"{where}: {name} is {number!r}; it must be a finite number above 0")


def _digest(record: Mapping[str, Any]) -> str:
    facts = record["facts"]
    blank = {**facts, FACTS: {**facts[FACTS], "content": ""}}
    return content_digest({**record, "facts": blank})
