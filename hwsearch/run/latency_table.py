"""The latency table that a run chooses by; what enters its front is measured all the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hwsearch.chains import ChainIndex
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.prediction.latency import LatencyPredictor
from hwsearch.run.basis import Basis
from hwsearch.run.setup import Setup
from hwsearch.tables import LatencyTable, find_tables


def _paths(setup: Setup) -> Sequence[Path]:
    if LATENCY not in setup.measured:
        return []
    return find_tables(setup.net.family, setup.device.slug)


def _applied(setup: Setup, path: Path) -> tuple[Setup, str]:
    net, device = setup.net, setup.device
    table = LatencyTable.load(path)
    table.check_made_for(net.family, net.full_space.digest, device.spec, where=repr(str(path)))
    index = ChainIndex(net.space, net.blocks)
    rules = [*(f"--only '{r}'" for r in net.only), *(f"--freeze '{r}'" for r in net.freeze)]
    table.check_covers(index.specs, " ".join(rules))
    predictor = LatencyPredictor(net.space, index, table)
    text = f"latency is predicted from {path.name} of {table.created} to choose, and then measured"
    now = device.fingerprint()
    changed = [name for name, value in now.items() if table.fingerprint.get(name) != value]
    if changed:
        text += (
            f"; the table was measured elsewhere ({changed[0]} was "
            f"{table.fingerprint.get(changed[0])}, is {now[changed[0]]}), and serves as a start"
        )
    objective = replace(setup.objective(LATENCY), approximation=predictor.predict_mean)
    return setup.with_objective(objective), text


LATENCY_TABLE = Basis(
    recorded="latency_table",
    what="latency table",
    paths=_paths,
    applied=_applied,
    without="latency is predicted from measured values alone",
)
