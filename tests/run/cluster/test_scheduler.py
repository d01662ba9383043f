"""Handing work out, and once more what was lost, with an executor that ends it in any order."""

from collections import deque

import pytest

from hwsearch.errors import EvaluationError, HwsearchError
from hwsearch.run.cluster.jobs import Findings, Work
from hwsearch.run.cluster.scheduler import Crew
from hwsearch.space import Choice, SearchSpace
from tests.run.search_parts import Watcher

SPACE = SearchSpace([Choice("width", (1, 2, 3, 4))])
ARCHS = [SPACE.architectures([{"width": width}])[0] for width in (1, 2, 3, 4)]
STEPS = ("latency", "top1")


class Backwards:
    """Ends the newest work first; some of it is lost, or fails."""

    whole = False

    def __init__(self, desk, size=2):
        self.desk, self.size = desk, size
        self.open, self.done = deque(), []
        self.lost, self.failing = [], set()

    def submit(self, work):
        self.open.append(work)

    def next(self):
        work = self.open.pop()
        (arch,), (quantity,) = work.archs, work.quantities
        self.done.append((arch["width"], quantity))
        if (arch["width"], quantity) in self.lost:
            self.lost.remove((arch["width"], quantity))
            return work, Findings(lost="scripted to be lost")
        if arch["width"] in self.failing:
            return work, Findings(failed={arch.key: "scripted to fail"})
        self.desk.found.setdefault(arch.key, {})[quantity] = arch["width"]
        return work, Findings()

    def close(self):
        self.open.clear()


class Desk:
    def __init__(self):
        self.found = {}

    def step(self, arch):
        known = self.found.get(arch.key, {})
        missing = [each for each in STEPS if each not in known]
        return Work(archs=(arch,), quantities=(missing[0],)) if missing else None

    def keep(self, findings):
        pass

    def values(self, arch):
        return self.found[arch.key]


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def executor(desk):
    return Backwards(desk)


def evaluate(executor, desk, watcher=None):
    crew = Crew(executor, desk, watcher)
    crew.start(ARCHS)
    results = {}
    while len(results) < len(ARCHS):
        results |= crew.finished()
    assert not executor.open
    return {arch["width"]: results[arch.key] for arch in ARCHS}


def test_latency_comes_first_and_every_step_is_done_once(executor, desk):
    found = evaluate(executor, desk)
    assert found == {w: {"latency": w, "top1": w} for w in (1, 2, 3, 4)}
    assert sorted(executor.done) == [(w, step) for w in (1, 2, 3, 4) for step in STEPS]
    for width in (1, 2, 3, 4):
        assert executor.done.index((width, "latency")) < executor.done.index((width, "top1"))


def test_what_fails_goes_no_further(executor, desk):
    executor.failing = {2}
    found = evaluate(executor, desk)
    assert str(found[2]) == "scripted to fail"
    assert isinstance(found[2], EvaluationError)
    assert (2, "top1") not in executor.done


def test_lost_work_is_done_again_once(executor, desk):
    executor.lost = [(3, "top1")]
    watcher = Watcher()
    assert evaluate(executor, desk, watcher)[3] == {"latency": 3, "top1": 3}
    assert executor.done.count((3, "top1")) == 2
    (note,) = watcher.notes
    assert note.endswith("which is done again: scripted to be lost")


def test_what_loses_two_workers_fails_alone(executor, desk):
    executor.lost = [(3, "latency")] * 2
    found = evaluate(executor, desk)
    assert str(found.pop(3)) == "its worker was lost 2 times; the last time: scripted to be lost"
    assert found == {w: {"latency": w, "top1": w} for w in (1, 2, 4)}
    assert executor.done.count((3, "latency")) == 2


def test_a_worker_that_gives_something_else_is_not_asked_for_ever(executor, desk):
    desk.found = {arch.key: {} for arch in ARCHS}
    executor.desk = Desk()  # nothing of it arrives
    crew = Crew(executor, desk)
    crew.start(ARCHS[:1])
    with pytest.raises(HwsearchError, match="one version of hwsearch"):
        crew.finished()


def test_one_proposal_waits_while_all_are_busy(executor, desk):
    crew = Crew(executor, desk)
    assert [crew.has_room(n) for n in (0, 1, 2, 3)] == [True, True, True, False]
    executor.size = 0  # all nodes are gone, and one may come back
    assert [crew.has_room(n) for n in (0, 1)] == [True, False]
    assert (crew.batch(4, None), crew.batch(4, 3)) == (1, 3)
