"""Value sources of a run: latency tables, predictors and warm starts, also for a resumed run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from hwsearch import tables
from hwsearch.accuracy.task import NO_DATA
from hwsearch.chains import ChainIndex
from hwsearch.devices.fingerprint import differences
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import REUSED
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import DIGITS, digest_of_text, sha256_of
from hwsearch.prediction.latency import LatencyPredictor
from hwsearch.prediction.predictor import find_predictor, load_predictor
from hwsearch.run.config import TRIALS
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import (
    EVIDENCE,
    LATENCY_TABLE,
    PREDICTOR,
    WARM_START,
    ValueSource,
)
from hwsearch.run.value_sources.warm_starts import read_csv, read_warm_start


def find_tables(setup: Setup) -> Sequence[Path]:
    """Return the latency tables of a supernet and device, the preferred one first."""
    wanted = LATENCY in setup.measured
    return tables.find_tables(setup.net.family, setup.device.slug) if wanted else []


def read_table(setup: Setup, path: Path) -> ValueSource:
    """Read a latency table, which predicts latency until it is measured."""
    net, device = setup.net, setup.device
    table = tables.LatencyTable.load(path)
    table.check_made_for(net.family, net.structures_digest, device.spec, where=repr(str(path)))
    index = ChainIndex(net.space, net.timed_blocks)
    rules = [*(f"--only '{r}'" for r in net.only), *(f"--freeze '{r}'" for r in net.freeze)]
    if net.precision is not None:
        rules.insert(0, f"--precision '{net.precision}'")
    table.check_covers(index.specs, " ".join(rules))
    note = f"latency is predicted from {path.name} of {table.created} to choose, and then measured"
    if changes := differences(table.fingerprint, device.fingerprint()):
        note += f"; the table was measured elsewhere ({changes}), and serves as a start"
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
    predictor = load_predictor(path, setup.net.structures)
    name, weights = f"{path.parent.name}/{path.name}", ""
    fitted = str(predictor.facts.get("weights", ""))
    if not (fitted and setup.net.digest.startswith(fitted)):
        of = predictor.facts.get("checkpoint") or fitted or "weights that its card does not name"
        weights = f"; it was fitted to {of}, and the weights here are {setup.net.weights}"
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
        of=setup.net.structures_of,
    )


def digest_of(path: Path) -> str:
    """Return 16 hex digits that identify a file, or a folder by the files in it."""
    if path.is_file():
        return sha256_of(path)[:DIGITS]
    files = sorted(each for each in path.rglob("*") if each.is_file())
    listed = "\n".join(f"{sha256_of(each)} {each.relative_to(path).as_posix()}" for each in files)
    return digest_of_text(listed)


class Kind(NamedTuple):
    """A kind of source that is found by the names of supernet, device and quantity.

    ``find`` returns its files or folders, the preferred one first. ``read`` returns the source in
    one of them, or raises `InputError`. ``title`` and ``predicts`` are its names in messages.
    """

    title: str
    predicts: str
    find: Callable[[Setup], Sequence[Path]]
    read: Callable[[Setup, Path], ValueSource]


INSTALLED: Final = {
    LATENCY_TABLE: Kind("latency table", "latency", find_tables, read_table),
    PREDICTOR: Kind("accuracy predictor", "accuracy", find_predictors, read_predictor),
}


def with_sources(setup: Setup) -> Setup:
    """Add the installed sources and the warm start to the setup of a new search.

    A table or predictor that is not usable is left out, with a note. An unusable warm start is an
    `InputError`, and so is an unusable predictor if there are no data.
    """
    for name, kind in INSTALLED.items():
        needed = name == PREDICTOR and not setup.task.scores
        paths = kind.find(setup)
        if needed and not paths:
            raise InputError(
                f"data {NO_DATA!r} needs a predictor of {setup.task.metric.name} for "
                f"{setup.net.family!r}, and there is none; fit one to a CSV of evaluated "
                "architectures by tools/fit_predictor.py, or give images by --data "
                "imagefolder:PATH"
            )
        try:
            setup = _using(setup, kind.read(setup, paths[0])) if paths else setup
        except InputError as error:
            if needed:
                raise
            note = f"{kind.predicts} is predicted from measured values alone: {error}"
            setup = replace(setup, notes=(*setup.notes, note))
    return setup if setup.config.warm_start is None else _using(setup, read_warm_start(setup))


def with_recorded_sources(setup: Setup, folder: Path, recorded: Mapping[str, Any]) -> Setup:
    """Add the recorded sources of a run to the setup of a resumed search.

    A warm start is read from its copy in the run's folder, or copied first if the run was stopped
    before that. A recorded source that is missing or was changed is an `InputError`.
    """
    for kind in INSTALLED:
        setup = _found_again(kind, setup, folder, recorded)
    used = recorded.get(WARM_START)
    if not used or (REUSED in used and (folder / TRIALS).is_file()):
        return setup  # the measurements of an earlier run are in the store of this one
    if (folder / EVIDENCE).is_file():
        return _using(setup, read_csv(setup, folder / EVIDENCE))
    early = f"run {str(folder)!r} was stopped before it had copied warm start {used['path']!r}"
    try:
        source = read_warm_start(setup)
    except InputError as error:
        raise InputError(f"{early}, which cannot be read any more: {error}") from error
    if source.recorded != used:
        raise InputError(f"{early}, which was changed since; start a new run")
    source.copy_to(folder)
    return _using(setup, source)


def with_recorded_predictor(setup: Setup, folder: Path, recorded: Mapping[str, Any]) -> Setup:
    """Add the recorded predictor of a run without data, which predicts its metric."""
    return setup if setup.task.scores else _found_again(PREDICTOR, setup, folder, recorded)


def _found_again(name: str, setup: Setup, folder: Path, recorded: Mapping[str, Any]) -> Setup:
    used, kind = recorded.get(name), INSTALLED[name]
    if not used:
        return setup
    for path in kind.find(setup):
        if digest_of(path) == used["digest"]:
            return _using(setup, kind.read(setup, path))
    raise InputError(
        f"run {str(folder)!r} chooses by {kind.title} {used['name']} (digest {used['digest']}), "
        "which is gone or was changed, so that it would no longer propose the same. Put it back, "
        "or start a new run"
    )


def _using(setup: Setup, source: ValueSource) -> Setup:
    """Return a setup with a source: its prediction, its record and its note."""
    if source.model is not None:
        unmeasured = source.quantity == setup.task.metric.name and not setup.task.scores
        use = "prediction" if unmeasured else "approximation"
        setup = setup.with_objective(source.quantity, **{use: source})
    sources, notes = (*setup.sources, source), (*setup.notes, source.note)
    return replace(setup, sources=sources, notes=notes)
