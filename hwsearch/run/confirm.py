"""From candidates to a front: the timings of a run's kit replace predictions."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from hwsearch.devices.fingerprint import digest
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import (
    REPEATED_WEIGHTS,
    latency_measurement,
    ratio_measurement,
)
from hwsearch.kit.manifest import CONFIRM, Manifest, read_manifest
from hwsearch.kit.results_file import KitFacts, check_complete, check_plan, read_results
from hwsearch.run.config import TRIALS
from hwsearch.run.finish import Finisher
from hwsearch.run.folder import RunFolder
from hwsearch.run.lock import locked
from hwsearch.run.outcome import KIT, remove_checksums, write_outcome
from hwsearch.run.progress import Progress
from hwsearch.run.setup import check_same, prepare
from hwsearch.run.summarize import replay_optimizer, summarize_search
from hwsearch.run.value_sources.registry import with_recorded_predictor
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

Run = TypeVar("Run", bound=RunFolder)


def confirm_run(
    kind: type[Run], folder: Path, timings: Path, net: Supernet | None, progress: Progress
) -> Run:
    """Turn candidates into a front as `hwsearch.confirm` does."""
    run = kind(folder)
    with locked(folder):
        manifest, facts, context = _read_timings(folder / KIT, timings)
        setup = prepare(run.config, net, directories=run.directories)
        setup = with_recorded_predictor(setup, folder, run.recorded)
        setup.read(progress)
        check_same(folder, run.recorded, setup.recorded())
        remove_checksums(folder)
        with (
            Store(folder / TRIALS) as store,
            closing(setup.evaluator(store)) as evaluator,
            closing(setup.device),
        ):
            finisher = Finisher(setup, evaluator, folder, progress)
            for key, reason in facts.failed.items():
                progress.note(f"{key} leaves the candidates: {reason}")
            measured = _remembered(store, facts, context, repr(str(timings)))
            rows = finisher.confirm(measured, manifest)
            summary = summarize_search(replay_optimizer(setup, store), store, setup, rows)
        write_outcome(folder, rows, setup, summary)
        run._draw(setup)
    return run


def _read_timings(kit: Path, path: Path) -> tuple[Manifest, KitFacts, str]:
    """Return a run's kit, the timings that it wrote on the device, and their context."""
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
    measured_on = f"{table.device} {digest(table.fingerprint)}"
    wanted = f"{manifest.device} {manifest.fingerprint}"
    if measured_on != wanted:
        raise InputError(
            f"{where} was measured on {measured_on}, and the run's table on {wanted}: they do not "
            "compare; run the kit there"
        )
    return manifest, facts, f"{measured_on} kit={manifest.digest} timings={facts.content[:12]}"


def _remembered(
    store: Store, facts: KitFacts, context: str, where: str
) -> Mapping[str, Measurement]:
    """Add the latencies to the store, once, and return them by key."""
    timed = {key: facts.latency(key, where) for key in facts.latencies}
    measured = {
        # Kits hold models with repeated weights.
        key: latency_measurement(key, latency, context, "confirm", weights=REPEATED_WEIGHTS)
        for key, latency in timed.items()
    }
    ratios = [ratio_measurement(key, latency, context) for key, latency in timed.items()]
    known = {each.identity for each in store.measurements(purpose="confirm")}
    store.add_all(e for e in (*measured.values(), *ratios) if e.identity not in known)
    return measured
