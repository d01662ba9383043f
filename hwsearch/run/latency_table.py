"""The latency table that a run chooses by; what enters its front is measured all the same."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsearch.chains import ChainIndex
from hwsearch.errors import InputError
from hwsearch.files import sha256_of
from hwsearch.run.evaluation import LATENCY
from hwsearch.run.setup import Setup
from hwsearch.surrogates.latency import LatencyPredictor
from hwsearch.tables import LatencyTable, find_tables

RECORDED = "latency_table"
_DIGITS = 16


def with_latency_table(setup: Setup) -> Setup:
    """Let a new search predict latency by the table of its supernet and device, if there is one.

    A table that cannot be used is left out; the notes say why.
    """
    paths = _paths(setup)
    if not paths:
        return setup
    try:
        return _with_table(setup, paths[0])
    except InputError as error:
        reason = f"latency is predicted from measured values alone: {error}"
        return replace(setup, notes=(*setup.notes, reason))


def with_recorded_table(setup: Setup, folder: Path, recorded: Mapping[str, Any]) -> Setup:
    """Let a resumed search predict by what it began with.

    Args:
        setup: Its parts.
        folder: The run's, for messages.
        recorded: What its settings had resolved to.

    Raises:
        InputError: It began with a table that is gone or was changed.
    """
    used = recorded.get(RECORDED)
    if not used:
        return setup
    for path in _paths(setup):
        if sha256_of(path)[:_DIGITS] == used["digest"]:
            return _with_table(setup, path)
    raise InputError(
        f"run {str(folder)!r} chooses by latency table {used['name']} (digest {used['digest']}), "
        "which is gone or was changed, so that it would no longer propose the same. Put that "
        "table back, or start a new run"
    )


def _paths(setup: Setup) -> list[Path]:
    if LATENCY not in setup.measured:
        return []
    return find_tables(setup.net.family, setup.device.slug)


def _with_table(setup: Setup, path: Path) -> Setup:
    net, device = setup.net, setup.device
    table = LatencyTable.load(path)
    table.check_made_for(net.family, net.full_space.digest, device.spec, where=repr(str(path)))
    index = ChainIndex(net.space, net.blocks)
    rules = [*(f"--only '{r}'" for r in net.only), *(f"--freeze '{r}'" for r in net.freeze)]
    table.check_covers(index.specs, " ".join(rules))
    predictor = LatencyPredictor(net.space, index, table)
    objectives = tuple(
        replace(objective, approximation=predictor.predict_mean)
        if objective.name == LATENCY
        else objective
        for objective in setup.objectives
    )
    used = {"name": path.name, "digest": sha256_of(path)[:_DIGITS]}
    text = f"latency is predicted from {path.name} of {table.created} to choose, and then measured"
    now = device.fingerprint()
    changed = [name for name, value in now.items() if table.fingerprint.get(name) != value]
    if changed:
        text += (
            f"; the table was measured elsewhere ({changed[0]} was "
            f"{table.fingerprint.get(changed[0])}, is {now[changed[0]]}), and serves as a start"
        )
    return replace(setup, objectives=objectives, table=used, notes=(*setup.notes, text))
