"""Warm-start phase of a run: missing values of reused trials are measured if worthwhile.

A missing value, such as the latency on this device, is predicted as a multiple of a proxy, such
as the latency on another device.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import REUSED, Evaluator
from hwsearch.evaluation.measurements import LATENCY, THROUGHPUT
from hwsearch.objectives import (
    BoolArray,
    Estimate,
    FloatArray,
    Objective,
    hypervolume,
    is_non_dominated,
    loss_signs,
    to_losses,
)
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.history import History, beyond_worst
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.prediction.log_ratio import LogRatioModel
from hwsearch.run.cluster.scheduler import InProcess
from hwsearch.run.front import contender_rows
from hwsearch.run.loop import Rounds
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architectures
from hwsearch.threads import one_blas_thread
from hwsearch.trials import Trial

Rows = NDArray[np.int64]

_FEWEST: Final = 4  # measured values before a multiple of a proxy is predicted
_LEAST_GAIN: Final = 1e-3  # share of the hypervolume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialValues:
    """Values of n distinct architectures, some of them missing.

    Attributes:
        history: Of the search that the architectures are reused in.
        values: ``(n, n_objectives)`` in the objectives' units; NaN is missing. Measured values
            are written into it.
        proxies: ``(n, n_objectives)`` numbers to which missing values may be proportional; NaN in
            a column without such numbers.
    """

    archs: Architectures
    history: History
    values: FloatArray
    proxies: FloatArray

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
            missing, proxy = np.isnan(values[:, column]), self.proxies[:, column]
            deviations[missing, column] = np.nan
            if (~missing).sum() < _FEWEST:
                continue
            model = LogRatioModel(self.archs.space)
            with suppress(InputError):  # a value is not positive, or a proxy is not or is missing
                model.fit(self.archs[~missing], values[~missing, column], proxy[~missing])
                found = model.predict(self.archs[missing], proxy[missing])
                values[missing, column], deviations[missing, column] = found
        return values, deviations

    def fill(self, row: int, found: Mapping[str, float]) -> None:
        """Write the measured values of a row, by objective."""
        for column, objective in enumerate(self.history.objectives):
            if objective.name in found:
                self.values[row, column] = found[objective.name]

    def told(self, rows: Rows) -> list[dict[str, float | Estimate]]:
        """Return rows without NaN forecasts as `Optimizer.tell` takes them, with estimates."""
        values, deviations = self.forecast()
        names = [objective.name for objective in self.history.objectives]
        return [
            {
                name: Estimate(value, deviation) if deviation else value
                for name, value, deviation in zip(names, values[row], deviations[row], strict=True)
            }
            for row in rows
        ]

    def worth_measuring(self, left: BoolArray, n: int) -> Rows:
        """Return up to n rows of ``left``, ``(n_archs,)``, that may be on the front, best first.

        Rows with a value that cannot be predicted yet are selected by their proxies, spread along
        the front of the proxies; rows without a proxy are always selected. Others are selected if
        they are on the front, and add a thousandth to its hypervolume, when their missing values
        are one standard deviation better than predicted.
        """
        history = self.history
        values, deviations = self.forecast()
        unclear = np.flatnonzero(left & np.isnan(values).any(axis=1))
        if len(unclear):
            return self._spread(unclear, n)
        hopeful = values - deviations * loss_signs(history.objectives)
        alive = np.flatnonzero(left | self.complete)
        tables = (history.by_name(values[alive]), history.by_name(hopeful[alive]))
        rows = alive[contender_rows(*tables, history.objectives, history.constraints)]
        rows = rows[left[rows]]
        losses = to_losses(values, history.objectives)
        reference = beyond_worst(losses[alive])
        front = losses[self.complete & history.feasible(values)]
        gains = hypervolume_gain(to_losses(hopeful[rows], history.objectives), front, reference)
        order = np.argsort(-gains, kind="stable")
        enough = gains[order] > _LEAST_GAIN * hypervolume(front, reference)
        return rows[order][enough][:n]

    def _spread(self, rows: Rows, n: int) -> Rows:
        """Return rows of the proxies' front, evenly spaced along the first objective."""
        values = self.values[rows]
        values = np.where(np.isnan(values).any(axis=0), self.proxies[rows], values)
        if np.isnan(values).any():
            return rows[:n]
        losses = to_losses(values, self.history.objectives)
        front = np.flatnonzero(is_non_dominated(losses))
        front = front[np.argsort(losses[front, 0], kind="stable")]
        places = np.linspace(0, len(front) - 1, min(n, len(front))).round().astype(np.int64)
        return rows[front[places]]


def measure_reused(
    setup: Setup, evaluator: Evaluator, optimizer: Optimizer, progress: Progress
) -> None:
    """Measure the reused trials that may be on the front.

    The optimiser, which must be new, receives all known values. Missing values of the other trials
    become estimates, which enter no front. Measurements from before an interruption are not
    repeated, so that the same architectures follow.
    """
    trials = [trial for trial in evaluator.store.trials() if trial.origin == REUSED]
    if not trials:
        return
    partial = _partial_values(setup, evaluator, optimizer.history, trials)
    archs = partial.archs
    left = np.ones(len(trials), dtype=np.bool_)
    optimizer.ask_recorded(archs)
    scheduler = InProcess(lambda asked: evaluator.search_values(asked, setup.measured))
    rounds = Rounds(optimizer, evaluator.store, scheduler, progress)
    progress.phase("reuse", len(trials), done=sum(trial.state.is_finished for trial in trials))
    while True:
        rows = np.flatnonzero(left & partial.complete)
        if not len(rows):
            with one_blas_thread():
                rows = partial.worth_measuring(left, optimizer.batch)
        if not len(rows):
            break
        left[rows] = False
        rounds.begin(0, archs[rows], [trials[row] for row in rows])
        while rounds.n_open:
            rounds.go_on()
        for row, arch in zip(rows.tolist(), archs[rows], strict=True):
            partial.fill(row, evaluator.known_values(arch, setup.measured))
    with one_blas_thread():
        values, _ = partial.forecast()
        rows = np.flatnonzero(left & ~np.isnan(values).any(axis=1))
        optimizer.tell(archs[rows], partial.told(rows))
    rounds.note_remarks()
    progress.note(
        f"{len(trials) - int(left.sum())} of {len(trials)} reused architectures were measured "
        "here in full; the others are not expected on the front"
    )


def _partial_values(
    setup: Setup, evaluator: Evaluator, history: History, trials: Sequence[Trial]
) -> PartialValues:
    archs = setup.net.space.architectures([trial.choices for trial in trials])
    values = history.exact(archs)
    proxies = np.full_like(values, np.nan)
    partial = PartialValues(archs=archs, history=history, values=values, proxies=proxies)
    for row, arch in enumerate(archs):
        partial.fill(row, evaluator.known_values(arch, setup.measured))
    for column, objective in enumerate(setup.objectives):
        if np.isnan(values[:, column]).any():
            proxies[:, column] = _proxy(setup, evaluator, objective, archs)
    return partial


def _proxy(
    setup: Setup, evaluator: Evaluator, objective: Objective, archs: Architectures
) -> ArrayLike:
    """Return numbers, (n,), to which an objective may be proportional; NaN without such ones."""
    if objective.approximation is not None:
        return objective.approximation(archs)
    if objective.name == THROUGHPUT:
        return 1e9 / setup.net.exact("macs", archs)
    if objective.name != LATENCY:
        return np.nan
    reused = {
        m.key: m.details[REUSED]
        for m in evaluator.store.measurements(purpose="search")
        if REUSED in m.details
    }
    there = [reused.get(key, {}).get("latency_ms") for key in archs.ids]
    return setup.net.exact("macs", archs) if None in there else there
