import numpy as np
import pytest

from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.approximations import ApproximationCheck
from tests.chained import SPACE, blocks


def work(archs):
    return np.array([sum(b.macs for b in blocks(arch)) for arch in archs], dtype=float)


def latency(archs):
    """A third more for every block: the work says little of it."""
    return work(archs) / 1e5 * np.exp([0.02 * arch["depth"] for arch in archs])


def unrelated(archs):
    return np.array([1.0 + 10.0 * (int(key[:6], 16) % 997) / 997 for key in archs.ids])


def accuracy(archs):
    return np.array([sum(v for v in arch.values() if isinstance(v, int)) for arch in archs])


def search(approximation, truth, rounds=10, tactic="hwsearch"):
    objectives = [
        Objective("top1", "max"),
        Objective("latency", "min", unit="ms", approximation=approximation),
    ]
    optimizer = Optimizer(SPACE, objectives, seed=0, tactic=tactic)
    for _ in range(rounds):
        archs = optimizer.ask()
        pairs = zip(accuracy(archs).tolist(), truth(archs).tolist(), strict=True)
        optimizer.tell(archs, [{"top1": a, "latency": b} for a, b in pairs])
    return optimizer


def of_latency(optimizer):
    return [
        remark
        for remark in optimizer.remarks
        if "latency" in remark and "cross-validated" not in remark
    ]


def test_an_approximation_that_holds_is_kept():
    assert of_latency(search(work, latency)) == []


def test_one_that_does_not_is_given_up_and_said_once():
    rng = np.random.default_rng(0)

    def restless(archs):
        # Calm at first, then off by a lot: what was learnt no longer covers.
        restless.calls += 1
        factor = np.exp(rng.normal(0, 0.5, len(archs))) if restless.calls > 4 else 1.0
        return latency(archs) * factor

    restless.calls = 0
    (remark,) = of_latency(search(work, restless, rounds=8))
    assert "values of latency lay outside the 95% intervals" in remark
    assert "refitted without its approximation" in remark


def test_proposals_depend_on_what_was_told_alone():
    first, second = search(work, latency, rounds=5), search(work, latency, rounds=5)
    assert first.history.asked == second.history.asked
    replayed = Optimizer(SPACE, first.objectives, seed=0)
    told, values = first.history.told, first.history.values
    for start in range(0, len(told), 4):
        part = slice(start, start + 4)
        replayed.ask_recorded(told[part])
        rows = [{"top1": a, "latency": b} for a, b in values[part].tolist()]
        replayed.tell(told[part], rows)
    assert replayed.ask() == first.ask()
    assert replayed.remarks == first.remarks


def test_predicts_better_with_it_than_without():
    told, new = SPACE.sample(12, 0), SPACE.sample(200, 1)
    objective = Objective("latency", "min", approximation=work)
    mean, _ = ApproximationCheck(objective).fit_predictor(told, latency(told)).predict(new)
    assert np.abs(mean / latency(new) - 1).mean() < 0.02


def test_values_that_are_not_positive_do_without():
    optimizer = search(work, lambda archs: latency(archs) - 3.0, rounds=4)
    (remark,) = of_latency(optimizer)
    assert "is no positive number" in remark


def test_an_approximation_that_is_no_number_does_without():
    (remark,) = of_latency(search(lambda archs: np.full(len(archs), np.nan), latency, rounds=4))
    assert "approximation nan" in remark


@pytest.mark.parametrize("tactic", ["nsga2", "random"])
def test_a_tactic_that_predicts_nothing_never_asks_for_it(tactic):
    def refuse(archs):
        raise AssertionError

    assert search(refuse, latency, tactic=tactic).remarks == []


def test_the_source_stays_measured():
    assert Objective("latency", "min", approximation=work).source == "measured"
