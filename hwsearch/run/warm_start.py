"""A search that starts from what is known: an earlier run's measurements, or a CSV's evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import EvaluationError, InputError
from hwsearch.evaluation.evaluator import REUSED, Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.objectives import BoolArray, FloatArray, Objective
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.approximations import Scaled
from hwsearch.prediction.predictor import Predictor
from hwsearch.prediction.threads import one_blas_thread
from hwsearch.run.config import TRIALS
from hwsearch.run.evidence import FILE as EVIDENCE
from hwsearch.run.evidence import Evidence, read_evidence
from hwsearch.run.known import Known
from hwsearch.run.progress import Progress
from hwsearch.run.reuse import Reused, read_reused
from hwsearch.run.setup import Setup
from hwsearch.space import Architectures, Option
from hwsearch.trials import TrialState

_LEAST_EVIDENCE = 8  # below that a surrogate says hardly more than their mean


def read_warm_start(setup: Setup) -> Reused | Evidence | None:
    """Read what a new search is given to start from.

    Raises:
        InputError: It cannot serve this search; see `read_reused` and `read_evidence`.
    """
    given = setup.config.warm_start
    if given is None:
        return None
    if setup.config.data == NO_DATA:
        raise InputError(
            f"warm start {given!r} serves no search without data: it measures no accuracy. Give "
            "--data, or leave it out"
        )
    path = Path(given)
    if path.is_dir():
        return read_reused(path, setup)
    if path.suffix.lower() != ".csv" or not path.is_file():
        raise InputError(
            f"warm start {given!r} is no run and no CSV file; give the folder of a run, or "
            "FILE.csv with a column for every choice and one for the metric"
        )
    return read_evidence(path, setup)


def started_from(setup: Setup, known: Reused | Evidence, budget: int | None) -> Setup:
    """Return a setup that says what it starts from.

    Args:
        setup: The parts of a new run.
        known: What it starts from.
        budget: The one asked for; None adds nothing to accuracies that are reused.
    """
    scored = known.n_scored if isinstance(known, Reused) else 0
    config = setup.config
    if budget is None and scored:
        config = config.with_budget(len(known.archs))
    notes = (*setup.notes, known.note)
    return replace(setup, config=config, warm_start=known.recorded, notes=notes)


def restore(folder: Path, setup: Setup, recorded: Mapping[str, Any]) -> None:
    """Make the run's own copy of what it started from, where it was killed before it had one.

    Raises:
        InputError: What it started from is gone or was changed since.
    """
    known = recorded.get("warm_start")
    if not known or (folder / (TRIALS if REUSED in known else EVIDENCE)).is_file():
        return
    early = f"run {str(folder)!r} was stopped before it had copied warm start {known['path']!r}"
    try:
        found = read_warm_start(setup)
    except InputError as error:
        raise InputError(f"{early}, which cannot be read any more: {error}") from error
    if found is None or found.recorded != known:
        raise InputError(f"{early}, which was changed since; start a new run")
    found.keep(folder)


def with_evidence(setup: Setup, folder: Path) -> Setup:
    """Let a search predict its metric from the evidence that its folder keeps, if there is any.

    The evidence is a multiple of what the prior predicts, where there is a prior.
    """
    if not (folder / EVIDENCE).is_file():
        return setup
    evidence = read_evidence(folder / EVIDENCE, setup)
    objective = next((o for o in setup.objectives if o.name == evidence.metric), None)
    if objective is None or len(evidence.archs) < _LEAST_EVIDENCE:
        return setup
    archs, values = evidence.archs, evidence.values
    with one_blas_thread():
        if objective.approximation is None:
            approximation = Predictor(setup.net.space).fit(archs, values).predict_mean
        else:
            approximation = Scaled(objective.approximation, archs, values).predict_mean

    return setup.with_objective(replace(objective, approximation=approximation))


def measure_known(
    setup: Setup, evaluator: Evaluator, optimizer: Optimizer, progress: Progress
) -> None:
    """Measure, of the trials that an earlier run had, what may belong to the front here.

    All that is known of them is told to the optimiser: what is missing of the others as an
    estimate, which enters no front. What was measured before an interruption is not measured
    again, so that the same architectures follow.

    Args:
        setup: The parts of the run.
        evaluator: Measures and remembers.
        optimizer: Fresh.
        progress: Told of every trial that is settled.
    """
    store = evaluator.store
    trials = [trial for trial in store.trials() if trial.origin == REUSED]
    if not trials:
        return
    known = _known(setup, evaluator, [trial.choices for trial in trials])
    failed = {t.key: str(t.reason) for t in trials if t.state is TrialState.FAILED}
    open_ = {t.key for t in trials if not t.state.is_finished}
    left = np.ones(len(trials), dtype=np.bool_)
    optimizer.ask_recorded(known.archs)
    progress.phase("reuse", len(trials))
    while True:
        rows = np.flatnonzero(left & known.complete)
        left[rows] = False
        for key in open_.intersection(known.archs[rows].ids):
            store.finish(key)
        optimizer.tell(known.archs[rows], known.told(rows))
        progress.advance(len(rows))
        with one_blas_thread():
            rows = known.worth_measuring(left, optimizer.batch)
        if not len(rows):
            break
        asked = [arch for arch in known.archs[rows] if arch.key not in failed]
        results = evaluator.search_values(asked, setup.measured)
        for row, arch in zip(rows, known.archs[rows], strict=True):
            result = results.get(arch.key, EvaluationError(failed.get(arch.key)))
            if not isinstance(result, EvaluationError):
                known.fill(int(row), result)
                continue
            left[row] = False
            optimizer.tell(known.archs[[int(row)]], [None])
            if arch.key in open_:
                store.fail(arch.key, str(result) or type(result).__name__)
                progress.note(f"{arch.key} failed: {result}")
            progress.advance()
    _tell_estimates(known, left, optimizer)
    settled = len(trials) - int(left.sum())
    progress.note(
        f"{settled} of {len(trials)} reused architectures were measured "
        "here in full; the others are not expected on the front"
    )


def _tell_estimates(known: Known, left: BoolArray, optimizer: Optimizer) -> None:
    with one_blas_thread():
        values, _ = known.forecast()
        rows = np.flatnonzero(left & ~np.isnan(values).any(axis=1))
        optimizer.tell(known.archs[rows], known.told(rows))


def _known(setup: Setup, evaluator: Evaluator, choices: Sequence[Mapping[str, Option]]) -> Known:
    archs = setup.net.space.architectures(choices)
    values = np.full((len(archs), len(setup.objectives)), np.nan)
    for column, objective in enumerate(setup.objectives):
        if objective.exact is not None:
            values[:, column] = objective.exact(archs)
            continue
        for row, key in enumerate(archs.ids):
            found = evaluator.remembered(key, objective.name)
            values[row, column] = np.nan if found is None else found.value
    missing = np.flatnonzero(np.isnan(values).any(axis=0))
    proxies = {int(c): _proxy(setup, evaluator, setup.objectives[c], archs) for c in missing}
    return Known(
        archs=archs,
        objectives=setup.objectives,
        constraints=setup.constraints,
        values=values,
        proxies={column: proxy for column, proxy in proxies.items() if proxy is not None},
    )


def _proxy(
    setup: Setup, evaluator: Evaluator, objective: Objective, archs: Architectures
) -> FloatArray | None:
    """Numbers that an objective may be a multiple of; None where there are none."""
    if objective.approximation is not None:
        return np.asarray(objective.approximation(archs), np.float64)
    if objective.name != LATENCY:
        return None
    there = {
        m.key: m.details[REUSED]["latency_ms"]
        for m in evaluator.store.measurements(purpose="search")
        if "latency_ms" in m.details.get(REUSED, {})
    }
    if all(key in there for key in archs.ids):
        return np.array([there[key] for key in archs.ids], np.float64)
    return setup.net.exact("macs", archs).astype(np.float64)
