"""Results of a plan on one device: the resumable measurement, and the file that keeps them.

The file is a latency table with all measurements and the progress of the plan.
"""

import json
import math
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

import numpy as np

from hwsearch.blocks import BlockSpec
from hwsearch.devices.base import Device, Latency, MeasureSettings, Profile, Profiling
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded
from hwsearch.kit.manifest import Plan, SubnetEntry
from hwsearch.precision import has_boundaries
from hwsearch.prediction.block_times import (
    BlockTimes,
    Observed,
    from_profiles,
    from_subnets,
    split_nodes,
)
from hwsearch.tables import LatencyTable, SubnetLatency, content_digest

if TYPE_CHECKING:
    from hwsearch.run.progress import Progress

Models = Callable[[Sequence[SubnetEntry]], AbstractContextManager[Mapping[str, Path]]]
_NUMBERS = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")
FACTS = "kit"
_MAY_BE_ZERO = ("cv", "waited", "cost_s")  # spreads and shares
_CLOSE = 1e-6


class Results:
    """The results of a plan on one device, which are kept in a file.

    Results in the file are continued. ``command`` is recorded as the one to continue by.

    Raises:
        InputError: The file is no results file, was changed, or has another plan or device.
    """

    def __init__(self, plan: Plan, device: Device, path: Path, command: str) -> None:
        self.plan, self.device, self.path = plan, device, path
        self._fingerprint = device.fingerprint()
        self.facts = KitFacts(
            digest=plan.digest,
            purpose=plan.purpose,
            run=plan.run,
            command=command,
            total=len(plan.models),
        )
        if not path.exists():
            return
        table, before = read_results(path)
        where = repr(str(path))
        check_plan(before, plan, where, "give another --out")
        there, here = digest(table.fingerprint), digest(self._fingerprint)
        if (table.device, there) != (device.spec, here):
            raise InputError(
                f"{where} holds latencies of {table.device} (fingerprint {there}), and this is "
                f"{device.spec} ({here}): they are not comparable; give another --out"
            )
        self.facts = replace(before, command=command, total=len(plan.models), content="")

    def missing(self) -> list[SubnetEntry]:
        """Return the subnets that are not measured yet, in order."""
        known = self.facts.latencies.keys() | self.facts.failed.keys()
        return [subnet for subnet in self.plan.models if subnet.key not in known]

    def save(self) -> None:
        """Write the file atomically; raise InputError where it cannot be written."""
        self.facts.missing = [subnet.key for subnet in self.missing()]
        try:
            sealed(self.table(), self.facts).save(self.path)
        except OSError as error:
            raise InputError(
                f"cannot write {str(self.path)!r}: {error}; give another --out"
            ) from error

    def table(
        self, validating: Container[str] = (), macs: Mapping[BlockSpec, int] | None = None
    ) -> LatencyTable:
        """Return the latency table, with block latencies once no subnet is missing.

        Args:
            validating: Keys of subnets that block latencies are not derived from.
            macs: Multiply-accumulates of all specs, used where blocks were not profiled or differ
                in precision.
        """
        latencies = self.facts.latencies
        measured = [subnet for subnet in self.plan.models if subnet.key in latencies]
        deriving = [subnet for subnet in measured if subnet.key not in validating]
        times = None if self.missing() else self._block_times(deriving, macs)
        baselines = [latencies[subnet.key]["baseline_ms"] for subnet in measured]
        return LatencyTable(
            supernet=self.plan.supernet,
            space=self.plan.space,
            device=self.device.spec,
            slug=self.device.slug,
            fingerprint=self._fingerprint,
            created=time.strftime("%Y-%m-%d", time.gmtime()),
            baseline_ms=float(np.median(baselines)) if baselines else 1.0,
            overhead_ms=times.overhead_ms if times else 0.0,
            blocks=times.blocks if times else {},
            subnets=tuple(
                SubnetLatency(
                    architecture=subnet.architecture,
                    purpose="validate" if subnet.key in validating else "cover",
                    **{name: latencies[subnet.key][name] for name in _NUMBERS},
                )
                for subnet in measured
            ),
            facts={"method": times.method} if times else {},
        )

    def _block_times(
        self, subnets: Sequence[SubnetEntry], macs: Mapping[BlockSpec, int] | None
    ) -> BlockTimes | None:
        observed = [
            Observed(
                chain=[(name, self.plan.specs[number]) for name, number in subnet.blocks.items()],
                latency_ms=self.facts.latencies[subnet.key]["latency_ms"],
                **self.facts.profiles.get(subnet.key, {}),
            )
            for subnet in subnets
            if subnet.blocks
        ]
        profiled = [each for each in observed if each.blocks_ms is not None]
        covered = {spec for each in profiled for _, spec in each.chain}
        complete = covered.issuperset(spec for each in observed for _, spec in each.chain)
        bounded = has_boundaries(spec for each in observed for _, spec in each.chain)
        if profiled and (macs is None or (complete and not bounded)):
            return from_profiles(profiled)
        return from_subnets(observed, macs) if observed and macs is not None else None


def measure_missing(
    results: Results,
    models: Models,
    settings: MeasureSettings,
    progress: "Progress",
    *,
    group_size: int,
    profiled: Container[str],
    seed: int = 0,
) -> None:
    """Measure the subnets without a result, a group at a time; each group is saved.

    ``models`` makes the model files of a group: subnets -> context manager of key -> file. The
    subnets in ``profiled`` are profiled too, where the device can. The phase of the progress is
    the purpose of the plan.
    """
    device, plan, facts = results.device, results.plan, results.facts
    order = [subnet.key for subnet in plan.models]
    progress.phase(plan.purpose, len(order), done=len(order) - len(results.missing()))

    def show(n_rounds: int, half_width: float) -> None:
        precise = {} if half_width != half_width else {"precision": f"±{half_width:.1%}"}
        progress.state(rounds=n_rounds, **precise)

    while group := results.missing()[:group_size]:
        latencies: Mapping[str, Latency | DeviceError] = {}
        profiles: Mapping[str, Profile | DeviceError] = {}
        with models(group) as paths:
            if paths:
                first = seed + order.index(group[0].key)
                latencies = device.measure(paths, seed=first, settings=settings, progress=show)
            measured = {k: p for k, p in paths.items() if isinstance(latencies[k], Latency)}
            to_profile = {key: path for key, path in measured.items() if key in profiled}
            if to_profile and isinstance(device, Profiling):
                profiles = device.profile(to_profile)
        for subnet in group:
            latency, profile = latencies.get(subnet.key), profiles.get(subnet.key)
            if isinstance(latency, Latency):
                facts.latencies[subnet.key] = latency_record(latency)
            else:
                facts.failed.setdefault(subnet.key, str(latency or "it was not measured"))
            if isinstance(profile, Profile) and subnet.blocks:
                blocks_ms, nodes = split_nodes(profile.nodes_ms, subnet.blocks)
                facts.profiles[subnet.key] = {"blocks_ms": blocks_ms, "nodes": nodes}
            for what, got in (("measured", latency), ("profiled", profile)):
                if isinstance(got, DeviceError):
                    progress.note(f"{subnet.key} cannot be {what}: {got}")
        results.save()
        progress.advance(len(group))


@dataclass(slots=True, kw_only=True)
class KitFacts:
    """The measurements in a results file, and their `Plan` (``digest``, ``purpose``, ``run``).

    ``command`` continues the measurement. ``missing`` are the keys of models that are not measured
    yet, ``failed`` maps keys to reasons, ``latencies`` to `Latency` as plain numbers, and
    ``profiles`` to ``blocks_ms`` and ``nodes`` of `hwsearch.prediction.block_times.Observed`.
    ``content`` is the digest of the file's content.
    """

    digest: str
    purpose: str
    run: str
    command: str
    total: int
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    latencies: dict[str, dict[str, Any]] = field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    content: str = ""

    def latency(self, key: str, where: str) -> Latency:
        """Return a model's latency without single runs; raise InputError for an invalid one."""
        return read_latency(self.latencies[key], f"{where}, model {key}")


def sealed(table: LatencyTable, facts: KitFacts) -> LatencyTable:
    """Return the table with the facts of its measurement, and a digest of its content."""
    record = asdict(facts)
    whole = replace(table, facts={**table.facts, FACTS: record})
    record["content"] = _digest(json.loads(whole.to_json()))
    return whole


def read_results(path: Path) -> tuple[LatencyTable, KitFacts]:
    """Return the table and the facts in a results file, complete or not; raise InputError."""
    where = repr(str(path))
    try:
        text = read_bounded(path, MAX_BYTES)
        record = parsed_json(text)
        given = dict(record["facts"][FACTS])
    except FileNotFoundError as error:
        raise InputError(f"there is no file {where}; give what a kit wrote") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{where} was not written by a kit: {error}") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where} was not written by a kit: it says nothing of one; make one by "
            "'hwsearch kit SUPERNET --out kit.pyz' and run it on the device"
        ) from error
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
    kept = {f.name: getattr(latency, f.name) for f in fields(latency) if f.name != "times_ms"}
    counted = None if latency.counted is None else latency.counted.tolist()
    return {**kept, "ratios": latency.ratios.tolist(), "counted": counted}


def read_latency(record: Mapping[str, Any], where: str) -> Latency:
    """Return an untrusted record's latency without single runs; raise InputError if invalid."""
    try:
        return _latency(record, where)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{where}: its latency is damaged: {error}") from error


def _latency(record: Mapping[str, Any], where: str) -> Latency:
    known = {field.name for field in fields(Latency)} - {"times_ms"}
    record = {"p50_ms": None, **record}  # which older kits do not measure
    if known - record.keys():
        raise InputError(f"{where}: {', '.join(sorted(known - record.keys()))} is missing")
    for name in known - {"counted"}:
        for number in record[name] if name == "ratios" else [record[name]]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                positive = number > 0 or (number == 0 and name in _MAY_BE_ZERO)
                if not (positive and math.isfinite(number)):
                    raise InputError(
                        f"{where}: {name} is {number!r}; it must be a finite number above 0"
                    )
    expected = record["ratio"] * record["baseline_ms"]
    if not math.isclose(record["latency_ms"], expected, rel_tol=_CLOSE):
        raise InputError(f"{where}: latency_ms is not its ratio times the anchor's baseline")
    ratios, counted = np.array(record["ratios"]), record["counted"]
    if ratios.ndim != 1 or ratios.dtype.kind not in "if":
        raise InputError(f"{where}: ratios are no list of numbers")
    ratios = ratios.astype(np.float64)
    if counted is not None:
        if not isinstance(counted, list) or list(map(type, counted)) != [bool] * len(ratios):
            raise InputError(
                f"{where}: counted is not a truth value for each of {len(ratios)} rounds"
            )
        counted = np.array(counted, dtype=np.bool_)
    read = {
        "warnings": tuple(record["warnings"]),
        "ratios": ratios,
        "counted": counted,
        "times_ms": np.empty((len(ratios), 0)),
    }
    return Latency(**{name: record[name] for name in known} | read)


def _digest(record: Mapping[str, Any]) -> str:
    facts = record["facts"]
    blank = {**facts, FACTS: {**facts[FACTS], "content": ""}}
    return content_digest({**record, "facts": blank})
