"""The search phase: propose, store, measure, tell; and the same again from what is stored."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from hwsearch.errors import EvaluationError
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.stopping import Stopping
from hwsearch.run.evaluation import REUSED, Values
from hwsearch.run.progress import Progress
from hwsearch.space import Architecture, Architectures
from hwsearch.trials import Purpose, Store, Trial, TrialState

SEARCHING: tuple[Purpose, ...] = ("search", "race")
Measure = Callable[[Sequence[Architecture]], Mapping[str, Values | EvaluationError]]


def run_search(
    optimizer: Optimizer, store: Store, measure: Measure, stopping: Stopping, progress: Progress
) -> None:
    """Evaluate architectures until the budget is spent, or the search ends before.

    Whatever the store holds counts as done: rounds in it are replayed to the optimiser in their
    order, and a round that was cut short is finished first, so that the proposals are those of
    an unbroken search.

    Args:
        optimizer: Fresh, of the same seed as ever.
        store: Receives every proposal before it is evaluated.
        measure: Returns key -> values or failure, for proposals that are not finished.
        stopping: When it ends. Its budget counts failed and reused architectures too, and its
            minutes what the store says that earlier processes spent on measuring.
        progress: Told of every finished trial, and of why the search ends before its budget.
    """
    began = time.monotonic() - _seconds_spent(store)
    budget = stopping.budget
    trials = store.trials()
    rounds = [list(group) for _, group in groupby(trials, key=lambda trial: trial.round)]
    said: set[str] = set()
    done = sum(trial.state.is_finished or trial.origin == REUSED for trial in trials)
    progress.phase("search", budget, done=done)
    for number, members in enumerate(rounds):
        if members[0].origin == REUSED:
            continue  # told before, see `hwsearch.run.warm_start`
        archs = optimizer.space.architectures([trial.choices for trial in members])
        optimizer.ask_recorded(archs)
        _finish_round(optimizer, store, measure, archs, members, progress)
        _report(optimizer, progress, number, said)
    proposed, number = len(trials), len(rounds)
    while proposed < budget:
        if ended := stopping.reason(optimizer, time.monotonic() - began):
            progress.note(ended)
            return
        archs = optimizer.ask(min(optimizer.batch, budget - proposed))
        if not len(archs):
            progress.note(f"the search space is exhausted after {proposed} architectures")
            return
        members = store.propose(archs, number, optimizer.tactic, optimizer.forecasts)
        _finish_round(optimizer, store, measure, archs, members, progress)
        _report(optimizer, progress, number, said)
        proposed, number = proposed + len(archs), number + 1


def _seconds_spent(store: Store) -> float:
    """What the search's own measurements took; what was reused is not counted."""
    spent = [m for purpose in SEARCHING for m in store.measurements(purpose=purpose)]
    return sum(m.cost_s for m in spent if REUSED not in m.details)


def _finish_round(
    optimizer: Optimizer,
    store: Store,
    measure: Measure,
    archs: Architectures,
    members: Sequence[Trial],
    progress: Progress,
) -> None:
    """Evaluate what is open in a round, then tell the optimiser all of it."""
    open_ = {trial.key for trial in members if not trial.state.is_finished}
    failed = {trial.key for trial in members if trial.state is TrialState.FAILED}
    for key in open_:
        store.start(key)
    # What is done already comes back from the store, without being measured again.
    results = measure([arch for arch in archs if arch.key not in failed])
    told: list[Values | None] = []
    for arch in archs:
        result = results.get(arch.key)
        told.append(None if isinstance(result, EvaluationError) else result)
        if arch.key not in open_:
            continue
        if isinstance(result, EvaluationError):
            store.fail(arch.key, str(result) or type(result).__name__)
            progress.note(f"{arch.key} failed: {result}")
        else:
            store.finish(arch.key)
        progress.advance()
    optimizer.tell(archs, told)


def _report(optimizer: Optimizer, progress: Progress, number: int, said: set[str]) -> None:
    for remark in optimizer.remarks:
        if remark not in said:
            progress.note(remark)
            said.add(remark)
    progress.state(
        round=number + 1,
        front=len(optimizer.front()),
        hypervolume=optimizer.hypervolume(),
    )
