"""Warm-start phase of a run: missing values of reused trials are measured if worthwhile."""

from collections.abc import Sequence

import numpy as np

from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import REUSED, Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.objectives import FloatArray, Objective
from hwsearch.optimizer import Optimizer
from hwsearch.prediction.threads import one_blas_thread
from hwsearch.run.partial_values import PartialValues
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architectures
from hwsearch.trials import Trial, TrialState


def measure_reused(
    setup: Setup, evaluator: Evaluator, optimizer: Optimizer, progress: Progress
) -> None:
    """Measure the reused trials that may be on the front.

    The optimiser, which must be new, receives all known values. Missing values of the other trials
    become estimates, which enter no front. Measurements from before an interruption are not
    repeated, so that the same architectures follow.
    """
    store = evaluator.store
    trials = [trial for trial in store.trials() if trial.origin == REUSED]
    if not trials:
        return
    partial = _partial_values(setup, evaluator, trials)
    archs = partial.archs
    failed = {t.key: str(t.reason) for t in trials if t.state is TrialState.FAILED}
    open_ = {t.key for t in trials if not t.state.is_finished}
    left = np.ones(len(trials), dtype=np.bool_)
    optimizer.ask_recorded(archs)
    progress.phase("reuse", len(trials))
    while True:
        rows = np.flatnonzero(left & partial.complete)
        left[rows] = False
        for key in open_.intersection(archs[rows].ids):
            store.finish(key)
        optimizer.tell(archs[rows], partial.told(rows))
        progress.advance(len(rows))
        with one_blas_thread():
            rows = partial.worth_measuring(left, optimizer.batch)
        if not len(rows):
            break
        asked = [arch for arch in archs[rows] if arch.key not in failed]
        results = evaluator.search_values(asked, setup.measured)
        for row, arch in zip(rows.tolist(), archs[rows], strict=True):
            result = results.get(arch.key, EvaluationError(failed.get(arch.key)))
            if not isinstance(result, EvaluationError):
                partial.fill(row, result)
                continue
            left[row] = False
            optimizer.tell(archs[[row]], [None])
            if arch.key in open_:
                store.fail(arch.key, str(result) or type(result).__name__)
                progress.note(f"{arch.key} failed: {result}")
            progress.advance()
    with one_blas_thread():
        values, _ = partial.forecast()
        rows = np.flatnonzero(left & ~np.isnan(values).any(axis=1))
        optimizer.tell(archs[rows], partial.told(rows))
    progress.note(
        f"{len(trials) - int(left.sum())} of {len(trials)} reused architectures were measured "
        "here in full; the others are not expected on the front"
    )


def _partial_values(setup: Setup, evaluator: Evaluator, trials: Sequence[Trial]) -> PartialValues:
    archs = setup.net.space.architectures([trial.choices for trial in trials])
    values = np.full((len(archs), len(setup.objectives)), np.nan)
    proxies: dict[int, FloatArray] = {}
    for column, objective in enumerate(setup.objectives):
        if objective.computed is not None:
            values[:, column] = objective.computed(archs)
            continue
        for row, key in enumerate(archs.ids):
            if (found := evaluator.remembered(key, objective.name)) is not None:
                values[row, column] = found.value
        if np.isnan(values[:, column]).any():
            proxy = _proxy(setup, evaluator, objective, archs)
            proxies |= {} if proxy is None else {column: proxy}
    return PartialValues(
        archs=archs,
        objectives=setup.objectives,
        constraints=setup.constraints,
        values=values,
        proxies=proxies,
    )


def _proxy(
    setup: Setup, evaluator: Evaluator, objective: Objective, archs: Architectures
) -> FloatArray | None:
    """Return numbers to which an objective may be proportional; None without such numbers."""
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
