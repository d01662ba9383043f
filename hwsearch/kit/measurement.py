"""Resumable measurement of the subnets of a plan, group by group, and their latency table."""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsearch.blocks import BlockSpec
from hwsearch.devices.base import Device, Latency, MeasureSettings, Profile, Profiling
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, InputError
from hwsearch.kit.manifest import Plan, SubnetEntry
from hwsearch.kit.results_file import KitFacts, check_plan, latency_record, read_results, sealed
from hwsearch.prediction.block_times import (
    BlockTimes,
    Observed,
    from_profiles,
    from_subnets,
    split_nodes,
)
from hwsearch.tables import LatencyTable, SubnetLatency

if TYPE_CHECKING:
    from hwsearch.run.progress import Progress

Models = Callable[[Sequence[SubnetEntry]], AbstractContextManager[Mapping[str, Path]]]
_NUMBERS = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")


class Results:
    """The results of a plan on one device; see `hwsearch.kit.results_file` for their file.

    Results in the file are continued. ``command`` is recorded as the one to continue by.

    Attributes:
        latencies: Key -> the latency as a record.
        profiles: Key -> the profile as a record.
        failed: Key -> reason why the subnet has no latency.

    Raises:
        InputError: The file is no results file, was changed, or has another plan or device.
    """

    def __init__(self, plan: Plan, device: Device, path: Path, command: str) -> None:
        self.plan, self.device, self.path, self._command = plan, device, path, command
        self._fingerprint = device.fingerprint()
        self.latencies: dict[str, dict[str, Any]] = {}
        self.profiles: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        if path.exists():
            self._load()

    def missing(self) -> list[SubnetEntry]:
        """Return the subnets that are not measured yet, in order."""
        known = self.latencies.keys() | self.failed.keys()
        return [subnet for subnet in self.plan.models if subnet.key not in known]

    def save(self) -> None:
        """Write the file atomically; raise InputError where it cannot be written."""
        facts = KitFacts(
            digest=self.plan.digest,
            purpose=self.plan.purpose,
            run=self.plan.run,
            command=self._command,
            total=len(self.plan.models),
            missing=[subnet.key for subnet in self.missing()],
            failed=self.failed,
            latencies=self.latencies,
            profiles=self.profiles,
        )
        try:
            sealed(self.table(), facts).save(self.path)
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
            macs: Multiply-accumulates of all specs, used where blocks were not profiled.
        """
        measured = [subnet for subnet in self.plan.models if subnet.key in self.latencies]
        deriving = [subnet for subnet in measured if subnet.key not in validating]
        times = None if self.missing() else self._block_times(deriving, macs)
        baselines = [self.latencies[subnet.key]["baseline_ms"] for subnet in measured]
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
                    **{name: self.latencies[subnet.key][name] for name in _NUMBERS},
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
                latency_ms=self.latencies[subnet.key]["latency_ms"],
                **self.profiles.get(subnet.key, {}),
            )
            for subnet in subnets
            if subnet.blocks
        ]
        profiled = [each for each in observed if each.blocks_ms is not None]
        covered = {spec for each in profiled for _, spec in each.chain}
        complete = covered.issuperset(spec for each in observed for _, spec in each.chain)
        if profiled and (complete or macs is None):
            return from_profiles(profiled)
        return from_subnets(observed, macs) if observed and macs is not None else None

    def _load(self) -> None:
        where = repr(str(self.path))
        table, facts = read_results(self.path)
        check_plan(facts, self.plan, where, "give another --out")
        before, now = digest(table.fingerprint), digest(self._fingerprint)
        if (table.device, before) != (self.device.spec, now):
            raise InputError(
                f"{where} holds latencies of {table.device} (fingerprint {before}), and this is "
                f"{self.device.spec} ({now}): they are not comparable; give another --out"
            )
        self.latencies, self.profiles = facts.latencies, facts.profiles
        self.failed = facts.failed


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
    device, plan = results.device, results.plan
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
                results.latencies[subnet.key] = latency_record(latency)
            else:
                results.failed.setdefault(subnet.key, str(latency or "it was not measured"))
            if isinstance(profile, Profile) and subnet.blocks:
                blocks_ms, nodes = split_nodes(profile.nodes_ms, subnet.blocks)
                results.profiles[subnet.key] = {"blocks_ms": blocks_ms, "nodes": nodes}
            for what, got in (("measured", latency), ("profiled", profile)):
                if isinstance(got, DeviceError):
                    progress.note(f"{subnet.key} cannot be {what}: {got}")
        results.save()
        progress.advance(len(group))
