"""One contract for whoever evaluates: this process, a pool of processes, a cluster."""

import os
import time

import numpy as np
import pytest

import hwsearch
from hwsearch.errors import EvaluationError, InputError
from hwsearch.run.cluster.workers import device_of, hire
from hwsearch.run.setup import prepare
from hwsearch.trials import MemoryStore
from tests.run.cluster.cluster_parts import config, settings
from tests.run.cluster.conftest import RAY, is_alive
from tests.run.search_parts import Watcher

QUANTITIES = {"top1", "latency"}
# Each process takes seconds to load its libraries; how losses are dealt with is in test_crew.py.
POOL = pytest.param(2, marks=[pytest.mark.slow, pytest.mark.timeout(300)])
ELSEWHERE = pytest.mark.parametrize("workers", [POOL, RAY], indirect=True)


class Search:
    """What a search has when it hires a crew, with all of a small space proposed."""

    def __init__(self, folder, workers, n=10):
        chosen = config(folder)
        self.setup = prepare(chosen, device=device_of(workers, chosen.device))
        self.store, self.watcher = MemoryStore(), Watcher()
        self.archs = list(self.setup.net.space.sample_distinct(n, np.random.default_rng(3)))
        self.store.propose(self.archs, 0, "test")
        self.evaluator = self.setup.evaluator(self.store)
        self.crew = hire(workers, self.setup, self.evaluator, self.watcher)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.crew.close()
        self.setup.device.close()

    def evaluate(self, archs):
        """Results of architectures in the order in which they came."""
        self.crew.start(archs)
        results = {}
        while len(results) < len(archs):
            new = self.crew.finished()
            assert not new.keys() & results.keys()
            results |= new
        return results


def found(results):
    """What can be compared."""
    return {k: str(r) if isinstance(r, EvaluationError) else r for k, r in results.items()}


def stored(store):
    """Everything that is the same wherever it was measured; graphs are timed with any weights."""
    return {
        m.identity: (m.value, m.low, m.high, m.count, m.samples.tobytes())
        for m in store.measurements()
    }


@pytest.fixture
def here(folder):
    with Search(folder, 1) as search:
        yield found(search.evaluate(search.archs)), stored(search.store)


@pytest.mark.parametrize("workers", [1, 2, RAY], indirect=True)
def test_results_and_measurements_are_those_of_one_process(folder, workers, here):
    with Search(folder, workers) as search:
        results = search.evaluate(search.archs)
        assert found(results) == here[0]
        timed = {k: v for k, v in stored(search.store).items() if k[1] == "latency"}
        assert timed == {k: v for k, v in here[1].items() if k[1] == "latency"}
        failed = {key for key, result in results.items() if isinstance(result, EvaluationError)}
        assert 0 < len(failed) < len(results)
        scored = {k: v for k, v in stored(search.store).items() if k[0] not in failed}
        assert scored == {k: v for k, v in here[1].items() if k[0] not in failed}


@pytest.mark.parametrize("workers", [1, POOL, RAY], indirect=True)
def test_what_is_known_is_not_measured_again(folder, workers):
    with Search(folder, workers, n=3) as search:
        first, before = search.evaluate(search.archs), search.store.measurements()
        again = search.evaluate([a for a in search.archs if isinstance(first[a.key], dict)])
        assert again.items() <= first.items()
        assert search.store.measurements() == before


@ELSEWHERE
def test_work_of_a_lost_worker_is_done_again(folder, workers, here):
    with Search(folder, workers) as search:
        folder.kill(search.archs[0].key, times=1)
        assert found(search.evaluate(search.archs)) == here[0]
        (note,) = search.watcher.notes
        assert search.archs[0].key in note
        assert "done again" in note


@ELSEWHERE
def test_an_architecture_that_kills_two_workers_fails_and_no_other_does(folder, workers, here):
    with Search(folder, workers) as search:
        killer = next(a.key for a in search.archs if "fail" not in str(here[0][a.key]))
        folder.kill(killer, times=2)
        results = found(search.evaluate(search.archs))
        assert "its worker was lost 2 times" in results.pop(killer)
        assert results == {key: value for key, value in here[0].items() if key != killer}


@ELSEWHERE
def test_workers_load_the_supernet_once(folder, workers):
    with Search(folder, workers) as search:
        search.evaluate(search.archs)
    others = [pid for pid in folder.loaded if pid != os.getpid()]
    assert 1 <= len(others) == len(set(others)) <= 2


@ELSEWHERE
def test_a_worker_with_other_weights_ends_the_search(folder, workers):
    with Search(folder, workers, n=2) as search:
        folder.exchange()
        with pytest.raises(InputError, match="scores would not compare: weights was"):
            search.evaluate(search.archs)


@ELSEWHERE
def test_closing_ends_what_is_at_work(folder, workers):
    with Search(folder, workers, n=4) as search:
        held = search.archs[0].key
        folder.hold(held)
        search.crew.start(search.archs)
        pid = folder.held(held)
        search.crew.close()
        while is_alive(pid):
            time.sleep(0.05)


@pytest.mark.usefixtures("quick_infer")
@ELSEWHERE
def test_a_whole_search_finds_the_same_front(folder, workers, tmp_path):
    given = settings(folder, tactic="random", batch=1)
    net = given.pop("supernet")
    alone = hwsearch.search(net, **given, out=tmp_path / "alone")
    given.pop("batch")
    together = hwsearch.search(net, **given, out=tmp_path / "together", workers=workers)
    assert together.trials["key"].tolist() == alone.trials["key"].tolist()
    kept = [k for k in alone.trials.columns if k != "top1"]
    assert together.trials[kept].equals(alone.trials[kept])
    assert together.front.equals(alone.front)


class Stopping(Watcher):
    """Interrupts a search as Ctrl-C does."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def advance(self, steps=1):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("quick_infer")
@ELSEWHERE
def test_an_interrupted_search_goes_on_with_another_number_of_workers(folder, workers, tmp_path):
    given = settings(folder, tactic="random", batch=1)
    net, out = given.pop("supernet"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="hwsearch resume"):
        hwsearch.search(net, **given, out=out, workers=workers, progress=Stopping(3))
    before = {m.identity: m.value for m in hwsearch.Run(out).measurements()}
    assert before
    run = hwsearch.resume(out, workers=1)
    assert before.items() <= {m.identity: m.value for m in run.measurements()}.items()
    assert set(run.trials["state"]) == {"done", "failed"}
    unbroken = hwsearch.search(net, **given, out=tmp_path / "unbroken")
    values = ["key", "state", "top1", "latency"]
    assert run.trials[values].equals(unbroken.trials[values])
    assert np.array_equal(run.front["key"], unbroken.front["key"])
