"""A search whose proposals stay open while others finish, over a store in memory."""

from types import SimpleNamespace

import numpy as np
import pytest

from hwsearch.evaluation.timings import Timings
from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.stopping import Stopping
from hwsearch.run.cluster.scheduler import JobResult, JobScheduler
from hwsearch.run.loop import run_search
from hwsearch.trial_store import Store
from hwsearch.trials import TrialState
from tests.run.search_parts import Watcher
from tests.run.test_search_loop import QUANTITIES, SPACE, Bench, DyingStore, Killed

BUDGET, N_WORKERS = 20, 3


class RandomOrder:
    """A queue that ends its jobs in random order."""

    n_workers = N_WORKERS

    def __init__(self, bench, seed):
        self.bench, self.rng = bench, np.random.default_rng(seed)
        self.open, self.most = [], 0

    def submit(self, job):
        self.open.append(job)
        self.most = max(self.most, len(self.open))

    def next(self):
        job = self.open.pop(int(self.rng.integers(len(self.open))))
        value = self.bench([job.arch])[job.arch.key]
        return job, JobResult(failed=str(value) if isinstance(value, Exception) else None)

    def close(self):
        self.open.clear()


class Stored:
    """An evaluator of what is in the store; one job measures all quantities."""

    pace, net = SimpleNamespace(highest=0.0, known=0), None
    timings = Timings()

    def __init__(self, store):
        self.store = store

    def timing_job(self, arch, quantities):
        return [], []

    def known_values(self, arch, quantities):
        found = {q: self.store.find(arch.key, q, "bench", "search") for q in quantities}
        return {quantity: m.value for quantity, m in found.items() if m is not None}


def search(store, tactic="hwsearch", seed=0, budget=BUDGET, progress=None):
    objectives = [Objective("top1", "max"), Objective("latency", "min")]
    optimizer = Optimizer(SPACE, objectives, seed=0, tactic=tactic)
    queue = RandomOrder(Bench(store), seed)
    scheduler = JobScheduler(queue, Stored(store), QUANTITIES)
    run_search(optimizer, store, scheduler, Stopping(budget=budget), progress or Watcher())
    return optimizer, queue


@pytest.fixture(scope="module")
def unbroken():
    store = Store()
    return store, *search(store)


def test_as_many_are_open_as_there_are_workers_and_one_waits(unbroken):
    store, optimizer, queue = unbroken
    assert queue.most == N_WORKERS + 1
    assert len(store.trials()) == len(optimizer.history.told) == BUDGET
    assert [trial.round for trial in store.trials()] == list(range(BUDGET))
    assert all(trial.state.is_finished for trial in store.trials())


def test_results_are_told_as_they_come(unbroken):
    store, optimizer, _ = unbroken
    told, proposed = optimizer.history.told.ids, [trial.key for trial in store.trials()]
    assert told != proposed
    assert sorted(told) == sorted(proposed)


def in_order(store):
    """Keys of what was measured, in the order of their last measurements."""
    backwards = dict.fromkeys(m.key for m in reversed(store.measurements()))
    return list(backwards)[::-1]


@pytest.mark.parametrize("n", [3, 19, 34, 47, 60, 77])
def test_cut_short_it_is_told_in_the_order_in_which_it_was_finished(n):
    store = Store()
    with pytest.raises(Killed):
        search(DyingStore(store, n))
    done = {trial.key for trial in store.trials(TrialState.DONE)}
    finished = [key for key in in_order(store) if key in done]
    optimizer, _ = search(store, seed=1)
    measured = [key for key in optimizer.history.told.ids if key in set(in_order(store))]
    assert measured[: len(finished)] == finished
    assert measured == in_order(store)
    assert len(store.trials()) == BUDGET
    again, _ = search(store)
    failed = {trial.key for trial in store.trials(TrialState.FAILED)}
    assert [k for k in again.history.told.ids if k not in failed] == in_order(store)
    assert again.rounds == optimizer.rounds
    assert again.front().ids == optimizer.front().ids


def test_a_search_by_rounds_goes_on_with_workers_and_back():
    """A round that was cut short is told as a whole, in the order of its proposals."""
    from tests.run.test_search_loop import search as by_rounds

    store = Store()
    with pytest.raises(Killed):
        by_rounds(DyingStore(store, 30), "hwsearch", budget=BUDGET)
    begun = {trial.round: 0 for trial in store.trials()}
    search(store)
    _, optimizer = by_rounds(store, "hwsearch", budget=BUDGET + 4)
    trials = store.trials()
    assert len(trials) == BUDGET + 4
    told = optimizer.history.told.ids
    for number in begun:
        keys = [trial.key for trial in trials if trial.round == number]
        first = told.index(keys[0])
        assert told[first : first + len(keys)] == keys


def test_nothing_is_measured_twice_when_cut_short_again_and_again():
    store = Store()
    for attempt in range(60):
        try:
            search(DyingStore(store, 11), tactic="random", seed=attempt)
        except Killed:
            continue
        break
    assert len(store.trials()) == BUDGET
    assert all(trial.state.is_finished for trial in store.trials())
