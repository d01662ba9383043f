"""Warm-start phase of a run: missing values of reused trials are measured if worthwhile.

A missing value, such as the latency on this device, is predicted as a multiple of a proxy, such
as the latency on another device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.constraints import Constraint, satisfied
from hwsearch.errors import EvaluationError, InputError
from hwsearch.evaluation.evaluator import REUSED, Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.objectives import (
    BoolArray,
    Estimate,
    FloatArray,
    Objective,
    hypervolume,
    is_non_dominated,
    known_as,
    to_losses,
)
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.history import beyond_worst
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.prediction.log_ratio import LogRatioModel
from hwsearch.prediction.threads import one_blas_thread
from hwsearch.run.front import contender_rows
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architectures
from hwsearch.trials import Trial, TrialState

Rows = NDArray[np.int64]

_FEWEST: Final = 4  # measured values before a multiple of a proxy is predicted
_OPTIMISM: Final = 1.0  # deviations by which a missing value may be better than predicted
_LEAST_GAIN: Final = 1e-3  # share of the hypervolume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialValues:
    """Values of n distinct architectures, some of them missing.

    Attributes:
        values: ``(n, n_objectives)`` in the objectives' units; NaN is missing. Measured values
            are written into it.
        proxies: Column -> ``(n,)`` numbers to which missing values may be proportional.
    """

    archs: Architectures
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    values: FloatArray
    proxies: Mapping[int, FloatArray]

    @property
    def complete(self) -> BoolArray:
        """``(n,)``: architectures without a missing value."""
        known: BoolArray = np.all(~np.isnan(self.values), axis=1)
        return known

    def forecast(self) -> tuple[FloatArray, FloatArray]:
        """Return values and standard deviations, ``(n, n_objectives)`` each; predict missing ones.

        Deviations are 0 for known values. Both are NaN without a proxy, or with fewer than four
        known values of the objective.
        """
        values, deviations = self.values.copy(), np.zeros_like(self.values)
        for column in np.flatnonzero(np.isnan(values).any(axis=0)).tolist():
            missing = np.isnan(values[:, column])
            deviations[missing, column] = np.nan
            if column not in self.proxies or (~missing).sum() < _FEWEST:
                continue
            proxy = self.proxies[column]
            try:
                model = LogRatioModel(self.archs.space)
                model.fit(self.archs[~missing], values[~missing, column], proxy[~missing])
                found = model.predict(self.archs[missing], proxy[missing])
            except InputError:  # a value or a proxy is not positive
                continue
            values[missing, column], deviations[missing, column] = found
        return values, deviations

    def fill(self, row: int, found: Mapping[str, float]) -> None:
        """Write the measured values of a row, by objective."""
        for column, objective in enumerate(self.objectives):
            if objective.name in found:
                self.values[row, column] = found[objective.name]

    def told(self, rows: Rows) -> list[dict[str, float | Estimate]]:
        """Return rows without NaN forecasts as `Optimizer.tell` takes them, with estimates."""
        values, deviations = self.forecast()
        names = [objective.name for objective in self.objectives]
        return [
            dict(zip(names, map(known_as, values[row], deviations[row]), strict=True))
            for row in rows
        ]

    def worth_measuring(self, left: BoolArray, n: int) -> Rows:
        """Return up to n rows of ``left``, ``(n_archs,)``, that may be on the front, best first.

        Rows with a value that cannot be predicted yet are selected by their proxies, spread along
        the front of the proxies; rows without a proxy are always selected. Others are selected if
        they are on the front, and add a thousandth to its hypervolume, when their missing values
        are one standard deviation better than predicted.
        """
        values, deviations = self.forecast()
        unclear = np.flatnonzero(left & np.isnan(values).any(axis=1))
        if len(unclear):
            return self._spread(unclear, n)
        signs = to_losses(np.ones((1, len(self.objectives))), self.objectives)
        hopeful = values - _OPTIMISM * deviations * signs
        alive = np.flatnonzero(left | self.complete)
        tables = (self._by_name(values[alive]), self._by_name(hopeful[alive]))
        rows = alive[contender_rows(*tables, self.objectives, self.constraints)]
        rows = rows[left[rows]]
        losses = to_losses(values, self.objectives)
        reference = beyond_worst(losses[alive])
        feasible = satisfied(self._by_name(values), self.constraints)
        front = losses[self.complete & feasible]
        gains = hypervolume_gain(to_losses(hopeful, self.objectives)[rows], front, reference)
        order = np.argsort(-gains, kind="stable")
        enough = gains[order] > _LEAST_GAIN * hypervolume(front, reference)
        return rows[order][enough][:n]

    def _spread(self, rows: Rows, n: int) -> Rows:
        """Return rows of the proxies' front, evenly spaced along the first objective."""
        values = self.values[rows]
        for column in np.flatnonzero(np.isnan(values).any(axis=0)).tolist():
            if column not in self.proxies:
                return rows[:n]
            values[:, column] = self.proxies[column][rows]
        losses = to_losses(values, self.objectives)
        front = np.flatnonzero(is_non_dominated(losses))
        front = front[np.argsort(losses[front, 0], kind="stable")]
        places = np.linspace(0, len(front) - 1, min(n, len(front))).round().astype(np.int64)
        return rows[front[places]]

    def _by_name(self, values: FloatArray) -> dict[str, FloatArray]:
        return {o.name: values[:, column] for column, o in enumerate(self.objectives)}


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
