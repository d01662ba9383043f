"""Latency tables and accuracy predictors, the user's or shipped ones, as value sources."""

from collections.abc import Sequence
from pathlib import Path

from hwsearch import tables
from hwsearch.chains import ChainIndex
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import DIGITS, digest_of_text, sha256_of
from hwsearch.prediction import Predictor
from hwsearch.prediction.latency import LatencyPredictor
from hwsearch.prediction.predictor import find_predictor, load_predictor
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import LATENCY_TABLE, PREDICTOR, ValueSource
from hwsearch.supernets.base import Supernet


def find_tables(setup: Setup) -> Sequence[Path]:
    """Return the latency tables of a supernet and device, the preferred one first."""
    if LATENCY not in setup.measured:
        return []
    return tables.find_tables(setup.net.family, setup.device.slug)


def read_table(setup: Setup, path: Path) -> ValueSource:
    """Read a latency table, which predicts latency until it is measured."""
    net, device = setup.net, setup.device
    table = tables.LatencyTable.load(path)
    table.check_made_for(net.family, net.full_space.digest, device.spec, where=repr(str(path)))
    index = ChainIndex(net.space, net.blocks)
    rules = [*(f"--only '{r}'" for r in net.only), *(f"--freeze '{r}'" for r in net.freeze)]
    table.check_covers(index.specs, " ".join(rules))
    note = f"latency is predicted from {path.name} of {table.created} to choose, and then measured"
    now = device.fingerprint()
    changed = [name for name, value in now.items() if table.fingerprint.get(name) != value]
    if changed:
        note += (
            f"; the table was measured elsewhere ({changed[0]} was "
            f"{table.fingerprint.get(changed[0])}, is {now[changed[0]]}), and serves as a start"
        )
    return ValueSource(
        kind=LATENCY_TABLE,
        quantity=LATENCY,
        recorded={"name": path.name, "digest": digest_of(path)},
        note=note,
        model=LatencyPredictor(net.space, index, table),
    )


def find_predictors(setup: Setup) -> Sequence[Path]:
    """Return the folder of the predictor of a supernet and metric, if there is one."""
    metric = setup.task.metric.name
    unwanted = setup.config.prior == "off" and setup.task.scores
    if unwanted or metric not in [objective.name for objective in setup.objectives]:
        return []
    found = find_predictor(setup.net.family, metric)
    return [] if found is None else [found]


def read_predictor(setup: Setup, path: Path) -> ValueSource:
    """Read an accuracy predictor; without data its values replace measured ones."""
    metric = setup.task.metric.name
    predictor = load_predictor(path, setup.net.space)
    name, weights = f"{path.parent.name}/{path.name}", _weights(setup.net, predictor)
    return ValueSource(
        kind=PREDICTOR,
        quantity=metric,
        recorded={"name": name, "digest": digest_of(path)},
        note=(
            f"{metric} is predicted by {name} to choose, and then measured{weights}"
            if setup.task.scores
            else f"candidates are chosen by what {name} predicts{weights}"
        ),
        model=predictor,
    )


def digest_of(path: Path) -> str:
    """Return 16 hex digits that identify a file, or a folder by the files in it."""
    if path.is_file():
        return sha256_of(path)[:DIGITS]
    files = sorted(each for each in path.rglob("*") if each.is_file())
    listed = "\n".join(f"{sha256_of(each)} {each.relative_to(path).as_posix()}" for each in files)
    return digest_of_text(listed)


def _weights(net: Supernet, predictor: Predictor) -> str:
    """Return the part of a note on a predictor that was fitted to other weights."""
    fitted = str(predictor.facts.get("weights", ""))
    if fitted and net.digest.startswith(fitted):
        return ""
    of = predictor.facts.get("checkpoint") or fitted or "a checkpoint that its card does not name"
    return f"; it was fitted to {of}, and the weights here are {net.weights}"
