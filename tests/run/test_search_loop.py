"""The loop alone, over a store in memory: cut short at every step, it always goes on the same."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from hwsearch.errors import EvaluationError
from hwsearch.evaluation.timings import Timings
from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.history import N_INITIAL
from hwsearch.optimizer.stopping import Stopping
from hwsearch.run.cluster.scheduler import InProcess
from hwsearch.run.loop import revise_timings, run_search
from hwsearch.run.progress import Silent
from hwsearch.space import Choice, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, TrialState
from tests.evaluation.test_timings import measured
from tests.run.search_parts import Watcher

SPACE = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        Choice("width", (8, 16, 24, 32)),
        Choice("block2.kernel", (3, 5, 7), ("depth", (2, 3))),
        Choice("block3.kernel", (3, 5, 7), ("depth", (3,))),
        Choice("act", ("relu", "swish")),
    ]
)
QUANTITIES = ("top1", "latency")
BUDGET = 14
CHANGES = ("propose", "start", "finish", "fail", "add")


class Killed(BaseException):
    pass


class DyingStore:
    """A store that ends the search instead of making its n-th change."""

    def __init__(self, store, n):
        self.store, self.left = store, n

    def __getattr__(self, name):
        method = getattr(self.store, name)
        return self._counting(method) if name in CHANGES else method

    def _counting(self, method):
        def counted(*args, **kwargs):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return method(*args, **kwargs)

        return counted


class Bench:
    """Scripted values, remembered in the store; every seventh architecture fails."""

    cost_s = 0.0

    def __init__(self, store):
        self.store = store
        self.asked, self.measured = set(), []

    def __call__(self, archs):
        self.asked |= {arch.key for arch in archs}
        return {arch.key: self._values(arch) for arch in archs}

    def _values(self, arch):
        code = zlib.crc32(arch.key.encode())
        if code % 7 == 0:
            return EvaluationError("scripted to fail")
        values = {"top1": float(code % 101), "latency": 1 + code % 89 / 10}
        for name, value in values.items():
            if self.store.find(arch.key, name, "bench", "search") is None:
                self.measured.append((arch.key, name))
                self.store.add(
                    Measurement(
                        key=arch.key,
                        quantity=name,
                        context="bench",
                        purpose="search",
                        value=value,
                        count=1,
                        cost_s=self.cost_s,
                    )
                )
        return values


def search(store, tactic="random", budget=BUDGET, seed=0, progress=None, batch=4, **limits):
    stopping = Stopping(budget=budget, **limits)
    objectives = [Objective("top1", "max"), Objective("latency", "min")]
    optimizer = Optimizer(SPACE, objectives, seed=seed, tactic=tactic, batch=batch)
    bench = Bench(store)
    run_search(optimizer, store, InProcess(bench), stopping, progress or Silent())
    return bench, optimizer


@pytest.fixture(scope="module")
def unbroken():
    found = {}
    for tactic in ("random", "nsga2", "hwsearch"):
        store = Store()
        search(store, tactic)
        found[tactic] = store
    return found


@pytest.mark.parametrize("name", ["latency", "throughput"])
def test_proposals_depend_on_what_was_timed_as_all_jobs_correct_it(name):
    given, objectives = {}, [Objective("top1", "max"), Objective(name, "max")]
    optimizer = SimpleNamespace(objectives=objectives, revise=given.__setitem__)
    timings = Timings(measured())
    revise_timings(optimizer, timings)
    assert given == {name: {key: m.value for key, m in timings.corrected(name).items()}}


def changes(store):
    """How many changes an unbroken search makes."""
    trials = store.trials()
    rounds = len({trial.round for trial in trials})
    return rounds + 2 * len(trials) + len(store.measurements())


def resumed(unbroken, tactic, n):
    store = Store()
    with pytest.raises(Killed):
        search(DyingStore(store, n), tactic)
    before = {m.identity[:2] for m in store.measurements()}
    failed = {trial.key for trial in store.trials(TrialState.FAILED)}
    bench, _ = search(store, tactic)
    assert store.trials() == unbroken.trials()
    assert not before & set(bench.measured)
    assert not failed & bench.asked
    assert sorted(m.identity for m in store.measurements()) == sorted(
        m.identity for m in unbroken.measurements()
    )


def test_cut_short_anywhere_it_goes_on_the_same(unbroken):
    total = changes(unbroken["random"])
    assert total > 50
    for n in range(total):
        resumed(unbroken["random"], "random", n)


@pytest.mark.parametrize("n", [1, 17, 33, 48, 52])
def test_so_it_does_where_proposals_depend_on_results(unbroken, n):
    resumed(unbroken["hwsearch"], "hwsearch", n)


def test_cut_short_again_and_again(unbroken):
    store = Store()
    for _ in range(changes(unbroken["random"])):
        try:
            search(DyingStore(store, 9), "random")
        except Killed:
            continue
        break
    assert store.trials() == unbroken["random"].trials()


@pytest.mark.parametrize("tactic", ["random", "nsga2", "hwsearch"])
def test_every_proposal_is_stored_once_before_it_is_measured(unbroken, tactic):
    trials = unbroken[tactic].trials()
    assert [trial.number for trial in trials] == list(range(BUDGET))
    first = {"hwsearch": [0] * 4 + [1] * (N_INITIAL - 4)}.get(tactic, [0] * 4 + [1] * 4)
    assert [trial.round for trial in trials[: len(first)]] == first
    assert {trial.round for trial in trials} == {0, 1, 2, 3}
    assert {trial.origin for trial in trials} == {tactic}
    assert len({trial.key for trial in trials}) == BUDGET


def test_what_was_predicted_is_stored_with_the_proposal(unbroken):
    trials = unbroken["hwsearch"].trials()
    assert [bool(trial.forecast) for trial in trials] == [t.number >= N_INITIAL for t in trials]
    assert {tuple(trial.forecast) for trial in trials[N_INITIAL:]} == {QUANTITIES}
    assert not any(trial.forecast for trial in unbroken["nsga2"].trials())


def test_failures_are_recorded_and_the_search_goes_on(unbroken):
    failed = unbroken["random"].trials(TrialState.FAILED)
    assert failed
    assert {trial.reason for trial in failed} == {"scripted to fail"}
    assert len(unbroken["random"].trials(TrialState.DONE)) == BUDGET - len(failed)


def test_a_search_that_is_done_does_nothing(unbroken):
    store = unbroken["random"]
    before = store.trials()
    bench, _ = search(store)
    assert bench.measured == []
    assert store.trials() == before


def test_a_larger_budget_goes_on_where_a_round_ended():
    longer, direct = Store(), Store()
    search(longer, "hwsearch", budget=8)
    search(longer, "hwsearch", budget=16)
    search(direct, "hwsearch", budget=16)
    assert longer.trials() == direct.trials()


def test_the_optimiser_has_learnt_everything_either_way(unbroken):
    store = Store()
    with pytest.raises(Killed):
        search(DyingStore(store, 30))
    _, resumed_ = search(store)
    _, direct = search(Store())
    assert resumed_.rounds == direct.rounds == 4
    assert resumed_.front().ids == direct.front().ids
    np.testing.assert_array_equal(resumed_.history.values, direct.history.values)


def test_progress_counts_what_is_done_already():
    store, watcher = Store(), Watcher()
    with pytest.raises(Killed):
        search(DyingStore(store, 30))
    done = sum(trial.state.is_finished for trial in store.trials())
    assert 0 < done < BUDGET
    search(store, progress=watcher)
    assert watcher.phases == [("search", BUDGET, done)]
    assert [figures["round"] for figures in watcher.states] == [1, 2, 3, 4]


def test_a_space_that_is_exhausted_ends_the_search():
    store, watcher = Store(), Watcher()
    search(store, budget=SPACE.size + 5, batch=32, progress=watcher)
    assert len(store.trials()) == SPACE.size
    assert watcher.notes[-1] == f"the search space is exhausted after {SPACE.size} architectures"


class TestEnds:
    def test_when_little_more_is_expected_and_the_same_after_a_break(self):
        limits = {"tactic": "hwsearch", "budget": 60, "stop_gain": 20.0}
        whole, broken, watcher = Store(), Store(), Watcher()
        search(whole, progress=watcher, **limits)
        n = len(whole.trials())
        assert 8 <= n < 60
        assert watcher.notes[-1].startswith(f"the search ended after {n} of 60 evaluations: the")
        with pytest.raises(Killed):
            search(DyingStore(broken, 30), **limits)
        search(broken, **limits)
        assert broken.trials() == whole.trials()
        search(broken, **limits)
        assert broken.trials() == whole.trials()

    def test_when_its_minutes_are_over_counting_those_before_a_break(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("hwsearch.run.loop.time.monotonic", lambda: now[0])
        monkeypatch.setattr(Bench, "cost_s", 12.0)

        def slow(self, archs):
            before = len(self.measured)
            found = measure(self, archs)
            now[0] += 12.0 * (len(self.measured) - before)
            return found

        measure = Bench.__call__
        monkeypatch.setattr(Bench, "__call__", slow)
        store, watcher = Store(), Watcher()
        search(store, progress=watcher, minutes=2)
        assert len(store.trials()) == 8  # about 90 s after the first round, 180 s after the second
        assert watcher.notes[-1].endswith("8 of 14 evaluations: its 2 minutes are over")
        search(store, minutes=2)
        assert len(store.trials()) == 8
        search(store, minutes=4)
        assert len(store.trials()) > 8
