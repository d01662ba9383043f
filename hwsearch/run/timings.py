"""Timings of a run's kit, checked and converted to measurements."""

from dataclasses import dataclass
from pathlib import Path

from hwsearch.devices.fingerprint import digest
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import (
    REPEATED_WEIGHTS,
    latency_measurement,
    ratio_measurement,
)
from hwsearch.kit.manifest import CONFIRM, Manifest, read_manifest
from hwsearch.kit.results_file import KitFacts, check_complete, check_plan, read_results
from hwsearch.tables import LatencyTable
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Latencies of a run's candidates, measured by its kit; ``where`` is the file for messages."""

    manifest: Manifest
    table: LatencyTable
    facts: KitFacts
    where: str

    @property
    def failed(self) -> dict[str, str]:
        """Key -> reason of candidates without a latency."""
        return self.facts.failed

    def remember(self, store: Store) -> dict[str, Measurement]:
        """Add the latencies to the store, once, and return them by key.

        Raises:
            InputError: A number is missing or not positive and finite, or a candidate is no trial.
        """
        context = (
            f"{self.table.device} {digest(self.table.fingerprint)} kit={self.manifest.digest} "
            f"timings={self.facts.content[:12]}"
        )
        timed = {key: self.facts.latency(key, self.where) for key in self.facts.latencies}
        measured = {
            key: latency_measurement(
                key,
                latency,
                context,
                "confirm",
                weights=REPEATED_WEIGHTS,  # what kits hold
            )
            for key, latency in timed.items()
        }
        ratios = [ratio_measurement(key, latency, context) for key, latency in timed.items()]
        known = {each.identity for each in store.measurements(purpose="confirm")}
        store.add_all(e for e in (*measured.values(), *ratios) if e.identity not in known)
        return measured


def read_timings(kit: Path, path: Path) -> Timings:
    """Read the timings that a run's kit wrote on the device.

    Raises:
        InputError: The file is no timings, is incomplete or changed, or is of another kit, run,
            device or machine.
    """
    where = repr(str(path))
    table, facts = read_results(path)
    if facts.purpose != CONFIRM:
        raise InputError(
            f"{where} is a table to predict from, and no timings of candidates; search with it by "
            f"'hwsearch search --device kit:{path}'"
        )
    if not kit.is_file():
        raise InputError(
            f"there is no kit {str(kit)!r}, so that {where} confirms nothing; only a search by "
            "'--device kit:TABLE.json' leaves one"
        )
    manifest = read_manifest(kit)
    if facts.run != manifest.run:
        raise InputError(
            f"{where} holds timings of another run ({facts.run or 'none'}, this is "
            f"{manifest.run}); give what {kit} wrote"
        )
    check_plan(facts, manifest, where, "both have to be of one making")
    check_complete(facts, path)
    measured_on = (table.device, digest(table.fingerprint))
    if measured_on != (manifest.device, manifest.fingerprint):
        raise InputError(
            f"{where} was measured on {' '.join(measured_on)}, and the run's table on "
            f"{manifest.device} {manifest.fingerprint}: they do not compare; run the kit there"
        )
    return Timings(manifest=manifest, table=table, facts=facts, where=where)
