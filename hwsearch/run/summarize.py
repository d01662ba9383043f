"""Computation of a search summary from the store of the run, without evaluations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.metric import Z95
from hwsearch.evaluation.evaluator import REUSED
from hwsearch.evaluation.measurements import paired_scores, shipped_scores
from hwsearch.evaluation.timings import with_corrected_timings
from hwsearch.objectives import FloatArray, hypervolume, is_non_dominated, to_losses
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.history import N_INITIAL
from hwsearch.optimizer.initial_design import initial_design
from hwsearch.optimizer.stopping import LOOKAHEAD
from hwsearch.optimizer.tactics import MIN_SUCCESSES
from hwsearch.run.front import knee, losses_of
from hwsearch.run.search_summary import (
    Comparison,
    Point,
    PredictionQuality,
    SearchSummary,
    compared_cost,
    times_better,
)
from hwsearch.run.setup import Setup
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, Trial, TrialState

_RECENT: Final = 16  # predictions per figure: those of one batch are too few
_LEAST_RANKED: Final = 4
_RANDOM_SETS: Final = 15
_RANDOM: Final = 4  # joined with the seed: an independent random stream

Found = dict[str, dict[str, Measurement]]


@dataclass(frozen=True, slots=True)
class _Search:
    """A search, its finished trials, their values ``(n, n_objectives)`` or NaN, measurements."""

    setup: Setup
    optimizer: Optimizer
    trials: Sequence[Trial]
    values: FloatArray
    found: Found
    shipped: Mapping[str, Measurement]

    def by_name(self, row: FloatArray) -> Point:
        return dict(zip((o.name for o in self.optimizer.objectives), row.tolist(), strict=True))

    def of_keys(self, keys: Sequence[str]) -> FloatArray:
        """Return the values of the measured ones of keys, in the order of the keys."""
        place = {trial.key: row for row, trial in enumerate(self.trials)}
        rows = self.values[[place[key] for key in keys if key in place]]
        return rows[~np.isnan(rows).any(axis=1)]

    @property
    def largest_key(self) -> str:
        return self.setup.net.space.largest().ids[0]

    @property
    def largest(self) -> Point | None:
        """Values of the largest architecture; None if it was not measured."""
        return next(map(self.by_name, self.of_keys([self.largest_key])), None)

    def hypervolume(self, values: FloatArray) -> float:
        """Return the hypervolume of the feasible rows with the reference of the search."""
        history = self.optimizer.history
        if history.reference is None:
            return 0.0
        losses = to_losses(values[history.feasible(values)], self.optimizer.objectives)
        return hypervolume(losses, history.reference)


def summarize_search(
    optimizer: Optimizer, store: Store, setup: Setup, rows: Sequence[Mapping[str, Any]]
) -> SearchSummary:
    """Compute the summary of a search from its optimiser (see `replay_optimizer`) and front."""
    trials = [trial for trial in store.trials() if trial.state.is_finished]
    history = optimizer.history
    place = {key: row for row, key in enumerate(history.told.ids)}
    told = [place[trial.key] for trial in trials]
    whole = history.measured[told]
    values = np.where(whole[:, np.newaxis], history.values[told], np.nan)
    metric = setup.task.metric
    scores = store.measurements(quantity=metric.name)
    shipped = shipped_scores(scores, metric.name, metric.direction)
    search = _Search(setup, optimizer, trials, values, search_found(store), shipped)
    units = {objective.name: objective.unit for objective in optimizer.objectives}
    members = {str(row["key"]): {name: float(row[name]) for name in units} for row in rows}
    table = {name: np.array([row[name] for row in rows]) for name in ("key", *units)}
    middle = knee(table, optimizer.objectives)
    best = str(table["key"][np.argmin(losses_of(table, optimizer.objectives[:1])[:, 0])])
    compared = {best: "best", middle: "knee"}
    uniform = _uniform(search)
    return SearchSummary(
        objectives=units,
        predicted=tuple(o.name for o in optimizer.objectives if o.source == "predicted"),
        metric=setup.task.metric.name,
        evaluated=len(trials),
        failed=sum(trial.state is TrialState.FAILED for trial in trials),
        reused=sum(trial.origin == REUSED for trial in trials),
        members=len(rows),
        reference=optimizer.reference or {},
        hypervolumes=tuple(search.hypervolume(values[: n + 1]) for n in range(len(trials))),
        gain=optimizer.expected_gain(LOOKAHEAD),
        fits=tuple(_fits(search)),
        random=_random(search),
        uniform=tuple(map(search.by_name, uniform)),
        uniform_hypervolume=search.hypervolume(uniform) if len(uniform) else None,
        uniform_at_knee=_interpolated(search, uniform, members[middle]),
        knee=members[middle],
        largest=search.largest,
        versus=tuple(_versus(search, members, compared)),
    )


def replay_optimizer(setup: Setup, store: Store) -> Optimizer:
    """Return the optimiser of a run with the values in the store, told by rounds."""
    optimizer, found = setup.optimizer(), search_found(store)
    for _, members in groupby(store.trials(), key=lambda trial: trial.round):
        trials = [trial for trial in members if trial.state.is_finished]
        archs = optimizer.space.architectures([trial.choices for trial in trials])
        optimizer.ask_recorded(archs)
        told: list[Mapping[str, float] | None] = []
        for trial in trials:
            values = {name: m.value for name, m in found.get(trial.key, {}).items()}
            whole = trial.state is TrialState.DONE and set(setup.measured) <= set(values)
            told.append(values if whole else None)
        optimizer.tell(archs, told)
    return optimizer


def search_found(store: Store) -> Found:
    """Return the measurements with purpose ``search``, corrected, by key and quantity."""
    found: Found = {}
    for each in with_corrected_timings(store.measurements()):
        if each.purpose == "search":
            found.setdefault(each.key, {})[each.quantity] = each
    return found


def _fits(search: _Search) -> Iterator[PredictionQuality]:
    """Compare predictions with measurements, after every round with new predictions."""
    for objective in search.setup.measured:
        compared: list[tuple[float, float, float, float]] = []
        evaluated = 0
        for _, members in groupby(search.trials, key=lambda trial: trial.round):
            before = len(compared)
            for trial in members:
                evaluated += 1
                got = search.found.get(trial.key, {}).get(objective)
                if got is not None and objective in trial.forecast:
                    compared.append((*trial.forecast[objective], got.value, _noise(got)))
            if len(compared) > before:
                yield _fit(objective, evaluated, np.array(compared[-_RECENT:]))


def _fit(objective: str, evaluated: int, compared: FloatArray) -> PredictionQuality:
    """Compare n predictions, (n, 4): mean, deviation, measured value and its noise."""
    from scipy.stats import kendalltau

    means, deviations, measured, noise = compared.T
    half = Z95 * np.hypot(deviations, noise)
    tau = None
    if len(measured) >= _LEAST_RANKED and np.ptp(means) > 0 and np.ptp(measured) > 0:
        tau = float(kendalltau(means, measured).statistic)
    return PredictionQuality(
        objective=objective,
        evaluated=evaluated,
        n=len(measured),
        tau=tau,
        covered=float((np.abs(measured - means) <= half).mean()),
    )


def _noise(measured: Measurement) -> float:
    """Return the standard error of a latency or throughput, 0 for a score on search images."""
    details = measured.details
    if "ratio_low" not in details:
        return 0.0
    width = (details["ratio_high"] - details["ratio_low"]) / details["ratio"]
    return float(measured.value * width / (2 * Z95))


def _uniform(search: _Search) -> FloatArray:
    """Return values of uniformly scaled architectures by the last objective; empty if too few."""
    cuts = search.optimizer.history.start[1:]  # behind the path: see `Supernet.start`
    graded = initial_design(search.optimizer.space, N_INITIAL, search.setup.config.seed)
    values = search.of_keys((cuts[0] if cuts else graded).ids)
    return values[np.argsort(values[:, -1])] if len(values) >= MIN_SUCCESSES else values[:0]


def _random(search: _Search) -> float | None:
    """Return the median predicted hypervolume of random sets, without failures and noise."""
    n_measured = int((~np.isnan(search.values).any(axis=1)).sum())
    if n_measured < MIN_SUCCESSES:
        return None
    from hwsearch.optimizer.posterior import Posterior
    from hwsearch.threads import one_blas_thread

    rng = np.random.default_rng((search.setup.config.seed, _RANDOM))
    with one_blas_thread():
        posterior = Posterior(search.optimizer.history)
        sets = [
            search.optimizer.space.sample_distinct(n_measured, rng) for _ in range(_RANDOM_SETS)
        ]
        return float(np.median([search.hypervolume(posterior.forecast(s).mean) for s in sets]))


def _interpolated(search: _Search, uniform: FloatArray, middle: Point) -> float | None:
    """Interpolate the first objective of uniform scaling where the second is that of the knee."""
    objectives = search.optimizer.objectives
    if len(objectives) != 2 or not len(uniform):
        return None
    best = uniform[is_non_dominated(to_losses(uniform, objectives))]
    best = best[np.argsort(best[:, 1])]
    across = middle[objectives[1].name]
    if not best[0, 1] <= across <= best[-1, 1]:
        return None
    return float(np.interp(across, best[:, 1], best[:, 0]))


def _versus(
    search: _Search, members: Mapping[str, Point], compared: dict[str, str]
) -> Iterator[Comparison]:
    """Compare members, key -> name, with the largest subnet."""
    cost = compared_cost(search.optimizer.objectives)
    largest, key = search.largest, search.largest_key
    if largest is None or cost is None:
        return
    for member, name in reversed(compared.items()):
        if member == key:
            continue
        points, low, high = paired_scores(search.shipped.get(member), search.shipped.get(key))
        yield Comparison(
            member=name,
            key=member,
            cost=cost,
            times=times_better(cost, members[member][cost], members.get(key, largest)[cost]),
            points=points,
            low=low,
            high=high,
        )
