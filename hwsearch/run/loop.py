"""The search phase: propose, store, measure, tell; stored rounds are replayed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import REUSED, Values
from hwsearch.evaluation.measurements import LATENCY, THROUGHPUT
from hwsearch.evaluation.timings import Timings
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.stopping import Stopping
from hwsearch.run.cluster.scheduler import Scheduler
from hwsearch.run.progress import Progress
from hwsearch.space import Architectures
from hwsearch.trial_store import Store
from hwsearch.trials import Trial, TrialState


def run_search(
    optimizer: Optimizer,
    store: Store,
    scheduler: Scheduler,
    stopping: Stopping,
    progress: Progress,
    batch: int | None = None,
    timings: Timings | None = None,
) -> None:
    """Evaluate architectures until the budget is spent or the search stops early.

    Before each proposal the optimiser gets latencies and throughputs as all timing jobs so far
    correct them.
    Stored rounds are replayed to the optimiser in the order in which they were finished, and
    interrupted ones are completed, so that proposals are those of an uninterrupted search. With
    several evaluations at a time, a round is one proposal, and the next one is made while others
    are open: it depends on the order in which evaluations finish.

    The optimiser has to be new. The budget of ``stopping`` counts failed and reused architectures
    too, its minutes also the stored measuring time of earlier processes. ``batch`` is the setting;
    ``timings`` are those of the store, as far as they were read.
    """
    measured = [*store.measurements(purpose="search"), *store.measurements(purpose="bridge")]
    spent = [m for m in measured if REUSED not in m.details]
    began = time.monotonic() - sum(m.cost_s for m in spent) / scheduler.n_workers
    budget, timings = stopping.budget, timings or Timings()
    trials = store.trials()
    done = sum(trial.state.is_finished or trial.origin == REUSED for trial in trials)
    progress.phase("search", budget, done=done)
    rounds = Rounds(optimizer, store, scheduler, progress)
    number, proposed, ended = rounds.replay(trials), len(trials), False
    batch = batch or scheduler.default_batch or optimizer.batch
    while True:
        if not ended and proposed < budget and rounds.n_open < scheduler.capacity:
            revise_timings(optimizer, timings.read(store))
            reason = stopping.reason(optimizer, time.monotonic() - began)
            archs = optimizer.space.sample(0, 0)
            if not reason:
                archs = optimizer.ask(min(batch, budget - proposed))
                reason = f"the search space is exhausted after {proposed} architectures"
            if not len(archs):
                progress.note(reason)
                ended = True
                continue
            members = store.propose(archs, number, optimizer.tactic, optimizer.forecasts)
            rounds.begin(number, archs, members)
            proposed, number = proposed + len(archs), number + 1
        elif rounds.n_open:
            rounds.go_on()
        else:
            revise_timings(optimizer, timings.read(store))
            return


def revise_timings(optimizer: Optimizer, timings: Timings) -> None:
    """Give the optimiser all that was timed as it is corrected by all timing jobs so far."""
    measured = {o.name for o in optimizer.objectives if o.computed is None}
    for quantity in (LATENCY, THROUGHPUT):
        if quantity in measured:
            optimizer.revise(quantity, timings.corrected_values(quantity))


@dataclass(slots=True, kw_only=True)
class _Round:
    """A round of which the optimiser has not been told; ``asked`` are the keys to evaluate."""

    number: int
    archs: Architectures
    asked: list[str]
    results: dict[str, Values | EvaluationError] = field(default_factory=dict)


class Rounds:
    """The open rounds; each is told to the optimiser once it is complete."""

    def __init__(
        self, optimizer: Optimizer, store: Store, scheduler: Scheduler, progress: Progress
    ) -> None:
        self._optimizer, self._store = optimizer, store
        self._scheduler, self._progress = scheduler, progress
        self._of: dict[str, _Round] = {}
        self._said = set(optimizer.remarks)

    @property
    def n_open(self) -> int:
        """Number of architectures that are being evaluated."""
        return len(self._of)

    def replay(self, trials: Sequence[Trial]) -> int:
        """Ask and tell stored rounds, and start open ones; return the number of the next round."""
        by_round = groupby(trials, key=lambda trial: trial.round)
        members = {number: list(group) for number, group in by_round}
        space = self._optimizer.space
        archs: dict[int, Architectures] = {}
        for number, group in members.items():
            if group[0].origin != REUSED:  # told before, see `hwsearch.run.warm_start`
                archs[number] = space.architectures([trial.choices for trial in group])
                self._optimizer.ask_recorded(archs[number])
        finished = [n for n in archs if all(trial.state.is_finished for trial in members[n])]
        for number in _as_finished(self._store, {n: members[n] for n in finished}):
            self.begin(number, archs[number], members[number])
            while self.n_open:
                self.go_on()
        for number in archs.keys() - set(finished):
            self.begin(number, archs[number], members[number])
        return len(members)

    def begin(self, number: int, archs: Architectures, members: Sequence[Trial]) -> None:
        """Start the evaluation of a round; finished trials return from the store."""
        for trial in members:
            if not trial.state.is_finished:
                self._store.start(trial.key)
        failed = {trial.key for trial in members if trial.state is TrialState.FAILED}
        asked = [arch for arch in archs if arch.key not in failed]
        begun = _Round(number=number, archs=archs, asked=[arch.key for arch in asked])
        self._of |= dict.fromkeys(begun.asked, begun)
        self._scheduler.start(asked)
        if not asked:
            self._tell(begun)

    def go_on(self) -> None:
        """Wait for results, and tell the optimiser the rounds that they complete."""
        for key, result in self._scheduler.finished().items():
            begun = self._of.pop(key)
            begun.results[key] = result
            if not self._store.trial(key).state.is_finished:
                if isinstance(result, EvaluationError):
                    self._store.fail(key, str(result) or type(result).__name__)
                    self._progress.note(f"{key} failed: {result}")
                else:
                    self._store.finish(key)
                self._progress.advance()
            if len(begun.results) == len(begun.asked):
                self._tell(begun)

    def _tell(self, finished: _Round) -> None:
        optimizer = self._optimizer
        results = (finished.results.get(key) for key in finished.archs.ids)
        told = [None if isinstance(each, EvaluationError) else each for each in results]
        optimizer.tell(finished.archs, told)
        self.note_remarks()
        self._progress.state(
            round=finished.number + 1,
            front=len(optimizer.front()),
            hypervolume=optimizer.hypervolume(),
        )

    def note_remarks(self) -> None:
        """Note the optimiser's remarks that are new since the last note."""
        for remark in self._optimizer.remarks:
            if remark not in self._said:
                self._progress.note(remark)
                self._said.add(remark)


def _as_finished(store: Store, rounds: dict[int, list[Trial]]) -> list[int]:
    """Sort finished rounds by their last measurement; one without follows the one before it."""
    measured = store.measurements(purpose="search")
    place = {m.key: position for position, m in enumerate(measured)}
    at, places = -1, dict[int, int]()
    for number, members in rounds.items():
        at = max((place[trial.key] for trial in members if trial.key in place), default=at)
        places[number] = at
    return sorted(places, key=places.__getitem__)
