"""What a kit has measured so far, and the file that keeps it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.devices.base import Device, Latency, Profile
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, InputError
from hwsearch.kit.manifest import KitModel, Manifest
from hwsearch.kit.results_file import (
    KitFacts,
    check_of_kit,
    latency_record,
    read_results,
    sealed,
)
from hwsearch.prediction.block_times import BlockTimes, Observed, from_profiles, split_nodes
from hwsearch.tables import LatencyTable, SubnetLatency


class Measured:
    """The results of a kit on one device, written after every group of models.

    Args:
        manifest: Of the kit.
        device: Measures.
        command: What goes on after a stop.
        path: The file; what an earlier start left there is taken over.

    Attributes:
        manifest: Of the kit.
        latencies: Key -> the latency as a record.
        profiles: Key -> the profile as a record.
        failed: Key -> why that model has no latency.

    Raises:
        InputError: The file is no such file, was changed, or is of another kit or device.
    """

    def __init__(self, manifest: Manifest, device: Device, command: str, path: Path) -> None:
        self.manifest, self._device, self._command, self._path = manifest, device, command, path
        self._fingerprint = device.fingerprint()
        self.latencies: dict[str, dict[str, Any]] = {}
        self.profiles: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        if path.exists():
            self._take_over()

    def missing(self) -> list[KitModel]:
        """Models that are still to be measured, in order."""
        known = self.latencies.keys() | self.failed.keys()
        return [model for model in self.manifest.models if model.key not in known]

    def add(
        self,
        results: Mapping[str, Latency | DeviceError],
        profiles: Mapping[str, Profile | DeviceError],
    ) -> None:
        """Take in what a group gave."""
        for key, result in results.items():
            if isinstance(result, Latency):
                self.latencies[key] = latency_record(result)
            else:
                self.failed[key] = str(result)
        blocks = {model.key: model.blocks for model in self.manifest.models}
        for key, profile in profiles.items():
            if isinstance(profile, Profile) and blocks[key]:
                spent_ms, nodes = split_nodes(profile.nodes_ms, blocks[key])
                self.profiles[key] = {"blocks_ms": spent_ms, "nodes": nodes}

    def save(self) -> None:
        """Write the file, all of it or nothing.

        Raises:
            InputError: It cannot be written.
        """
        facts = KitFacts(
            digest=self.manifest.digest,
            purpose=self.manifest.purpose,
            run=self.manifest.run,
            command=self._command,
            total=len(self.manifest.models),
            missing=[model.key for model in self.missing()],
            failed=self.failed,
            latencies=self.latencies,
            profiles=self.profiles,
        )
        try:
            sealed(self._table(), facts).save(self._path)
        except OSError as error:
            raise InputError(
                f"cannot write {str(self._path)!r}: {error}; give another --out"
            ) from error

    def _table(self) -> LatencyTable:
        measured = [m for m in self.manifest.models if m.key in self.latencies]
        times = self._block_times() if not self.missing() and self.profiles else None
        baselines = [self.latencies[model.key]["baseline_ms"] for model in measured]
        return LatencyTable(
            supernet=self.manifest.supernet,
            space=self.manifest.space,
            device=self._device.spec,
            slug=self._device.slug,
            fingerprint=self._fingerprint,
            created=time.strftime("%Y-%m-%d"),
            baseline_ms=float(np.median(baselines)) if baselines else 1.0,
            overhead_ms=times.overhead_ms if times else 0.0,
            blocks=times.blocks if times else {},
            subnets=tuple(self._subnet(model) for model in measured),
        )

    def _block_times(self) -> BlockTimes:
        specs = self.manifest.specs
        return from_profiles(
            [
                Observed(
                    chain=[(name, specs[number]) for name, number in model.blocks.items()],
                    latency_ms=self.latencies[model.key]["latency_ms"],
                    **self.profiles[model.key],
                )
                for model in self.manifest.models
                if model.key in self.profiles
            ]
        )

    def _subnet(self, model: KitModel) -> SubnetLatency:
        names = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")
        known = self.latencies[model.key]
        return SubnetLatency(
            architecture=model.architecture, **{name: known[name] for name in names}
        )

    def _take_over(self) -> None:
        table, facts = read_results(self._path)
        check_of_kit(facts, self.manifest, repr(str(self._path)))
        before, now = digest(table.fingerprint), digest(self._fingerprint)
        if (table.device, before) != (self._device.spec, now):
            raise InputError(
                f"{str(self._path)!r} holds latencies of {table.device} (fingerprint {before}), "
                f"and this is {self._device.spec} ({now}): they would not compare; "
                "give another --out"
            )
        self.latencies, self.profiles = facts.latencies, facts.profiles
        self.failed = facts.failed
