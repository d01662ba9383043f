"""Schedulers, with a queue that ends the newest job first."""

from collections import deque
from types import SimpleNamespace

import pytest

from hwsearch.errors import EvaluationError, HwsearchError
from hwsearch.evaluation.timings import Timings
from hwsearch.run.cluster.scheduler import InProcess, JobResult, JobScheduler
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace([Choice("width", (1, 2, 3, 4))])
ARCHS = [SPACE.architectures([{"width": width}])[0] for width in (1, 2, 3, 4)]
QUANTITIES = ("latency", "top1")


class NewestFirst:
    """A queue that ends the newest job first; architectures of ``failing`` widths fail."""

    def __init__(self, evaluator, n_workers=2):
        self.evaluator, self.n_workers = evaluator, n_workers
        self.open, self.done, self.failing = deque(), [], set()

    def submit(self, job):
        self.open.append(job)

    def next(self):
        job = self.open.pop()
        width = job.arch["width"]
        self.done.append((width, job.quantity))
        if width in self.failing:
            return job, JobResult(failed="scripted to fail")
        self.evaluator.known.setdefault(job.arch.key, {})[job.quantity] = width
        return job, JobResult()

    def close(self):
        self.open.clear()


class KnownValues:
    """An evaluator whose values come from the queue."""

    pace, net = SimpleNamespace(highest=0.0, known=0), None
    timings = Timings()
    store = SimpleNamespace(add_all=lambda _: None)

    def __init__(self):
        self.known = {}

    def timing_job(self, arch, quantities):
        return [], []

    def known_values(self, arch, quantities):
        return dict(self.known.get(arch.key, {}))


@pytest.fixture
def evaluator():
    return KnownValues()


@pytest.fixture
def queue(evaluator):
    return NewestFirst(evaluator)


def evaluate(queue, evaluator):
    scheduler = JobScheduler(queue, evaluator, QUANTITIES[::-1])
    scheduler.start(ARCHS)
    results = {}
    while len(results) < len(ARCHS):
        results |= scheduler.finished()
    assert not queue.open
    return {arch["width"]: results[arch.key] for arch in ARCHS}


def test_each_quantity_is_measured_once_latency_first(queue, evaluator):
    assert evaluate(queue, evaluator) == {w: {"latency": w, "top1": w} for w in (1, 2, 3, 4)}
    assert sorted(queue.done) == [(w, each) for w in (1, 2, 3, 4) for each in QUANTITIES]
    for width in (1, 2, 3, 4):
        assert queue.done.index((width, "latency")) < queue.done.index((width, "top1"))


def test_known_values_need_no_job(queue, evaluator):
    evaluator.known = {arch.key: {"latency": 7, "top1": 8} for arch in ARCHS}
    assert evaluate(queue, evaluator) == {w: {"latency": 7, "top1": 8} for w in (1, 2, 3, 4)}
    assert queue.done == []


def test_a_failed_job_ends_the_evaluation_of_its_architecture_only(queue, evaluator):
    queue.failing = {2}
    found = evaluate(queue, evaluator)
    assert isinstance(found[2], EvaluationError)
    assert str(found.pop(2)) == "scripted to fail"
    assert found == {w: {"latency": w, "top1": w} for w in (1, 3, 4)}
    assert (2, "top1") not in queue.done


def test_a_result_without_its_quantity_is_not_asked_for_again(queue, evaluator):
    queue.evaluator = KnownValues()  # results are lost
    scheduler = JobScheduler(queue, evaluator, QUANTITIES[::-1])
    scheduler.start(ARCHS[:1])
    with pytest.raises(HwsearchError, match="one version of hwsearch"):
        scheduler.finished()


@pytest.mark.parametrize(
    ("n_workers", "expected"),
    [(0, (1, 1)), (1, (1, 1)), (2, (2, 3)), (5, (5, 6))],  # without nodes, one may join
)
def test_one_proposal_waits_while_several_workers_are_busy(queue, evaluator, n_workers, expected):
    queue.n_workers = n_workers
    scheduler = JobScheduler(queue, evaluator, QUANTITIES[::-1])
    assert (scheduler.n_workers, scheduler.capacity) == expected


def test_in_process_batches_are_evaluated_whole_and_in_order():
    asked = []

    def measure(archs):
        asked.append(list(archs))
        return {arch.key: {"top1": arch["width"]} for arch in archs}

    scheduler = InProcess(measure)
    scheduler.start(ARCHS[:3])
    scheduler.start([])
    scheduler.start(ARCHS[3:])
    assert asked == []
    assert list(scheduler.finished()) == [arch.key for arch in ARCHS[:3]]
    assert scheduler.finished() == {ARCHS[3].key: {"top1": 4}}
    assert asked == [ARCHS[:3], ARCHS[3:]]
    assert (scheduler.n_workers, scheduler.capacity) == (1, 1)
