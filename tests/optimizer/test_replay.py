"""What was asked and told, in its order, is all that decides what is proposed next."""

import numpy as np
import pytest

from hwsearch.objectives import Estimate, Objective
from hwsearch.optimizer import Optimizer, tactic_names
from hwsearch.space import Architectures
from tests.optimizer.problems import Tabular, elastic_space

TABLE = Tabular(elastic_space(3))
SIZES = (3, 1, 5, 12, 2, 7, 4, 9)


def objectives(n):
    heat = Objective("heat", "min", exact=lambda archs: archs.indices.sum(axis=1))
    known = [*TABLE.objectives(), Objective("memory", "min"), heat]
    return known[:n]


def optimizer(tactic="hwsearch", n_objectives=2, constraints=()):
    return Optimizer(
        TABLE.space, objectives(n_objectives), seed=3, tactic=tactic, constraints=constraints
    )


def results(archs):
    """Values of which every sixth is missing and every seventh known in part."""
    found = []
    for key, values in zip(archs.ids, TABLE.evaluate(archs), strict=True):
        code = int(key[:8], 16)
        if code % 6 == 0:
            found.append(None)
        elif code % 7 == 0:
            found.append({**values, "quality": Estimate(values["quality"] + 1.0, 1.0)})
        else:
            found.append(values)
    return found


def interleaved(subject, sizes=SIZES):
    """Ask before everything is told, and tell late, out of order and in other batches."""
    rng = np.random.default_rng(0)
    events = []
    pending = TABLE.space.sample(0, 0)
    for size in sizes:
        asked = subject.ask(size)
        events.append(("ask", size, asked))
        pending = Architectures.concatenate([pending, asked])
        pending = pending[rng.permutation(len(pending))]
        back = pending[: int(rng.integers(0, len(pending) + 1))]
        pending = pending[len(back) :]
        if len(back):
            subject.tell(back, results(back))
            events.append(("tell", back, results(back)))
    return events


def replayed(subject, events):
    for kind, first, second in events:
        if kind == "ask":
            subject.ask_recorded(second)
        else:
            subject.tell(first, second)


def goes_on(subject, events):
    for kind, first, second in events:
        if kind == "ask":
            assert subject.ask(first) == second
        else:
            subject.tell(first, second)


@pytest.mark.parametrize("tactic", tactic_names())
def test_the_recorded_order_goes_on_the_same_from_anywhere(tactic):
    live = optimizer(tactic)
    events = interleaved(live, (50, 4, 9) if tactic == "linas" else SIZES)
    asked = Architectures.concatenate([event[2] for event in events if event[0] == "ask"])
    assert len(asked) == len(asked.unique()) > 30
    for done in (1, len(events) // 2):
        resumed = optimizer(tactic)
        replayed(resumed, events[:done])
        goes_on(resumed, events[done:])
        assert resumed.front() == live.front()
        assert resumed.hypervolume() == live.hypervolume()


@pytest.mark.parametrize(
    ("n_objectives", "constraints"),
    [(1, ()), (2, ("quality >= 60",)), (3, ("cost <= 90",)), (4, ())],
)
def test_with_one_to_four_objectives(n_objectives, constraints):
    live = optimizer(n_objectives=n_objectives, constraints=constraints)
    events = interleaved(live, SIZES[:6])
    half = len(events) // 2
    resumed = optimizer(n_objectives=n_objectives, constraints=constraints)
    replayed(resumed, events[:half])
    goes_on(resumed, events[half:])


def test_the_order_of_telling_counts_and_the_split_does_not():
    archs = TABLE.space.sample_distinct(12, 0)
    asked = []
    for order in ([archs], [archs[:5], archs[5:]], [archs[::-1]]):
        subject = optimizer()
        subject.ask_recorded(archs)
        for part in order:
            subject.tell(part, TABLE.evaluate(part))
        asked.append(subject.ask(4))
    assert asked[0] == asked[1]
    assert subject.history.told == archs[::-1]


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_batches_of_any_size(size):
    subject = optimizer()
    seen = TABLE.space.sample(0, 0)
    for _ in range(6 if size < 64 else 3):
        archs = subject.ask(size)
        assert 0 < len(archs) <= size
        subject.tell(archs, TABLE.evaluate(archs))
        seen = Architectures.concatenate([seen, archs])
    assert len(seen.unique()) == len(seen)


def test_what_is_still_pending_counts():
    alone, beside = optimizer(), optimizer()
    for subject in (alone, beside):
        first = subject.ask(8)
        subject.tell(first, TABLE.evaluate(first))
    wanted = alone.ask(4)
    beside.ask_recorded(wanted[:2])
    alone_again, beside_again = alone.ask(4), beside.ask(4)
    assert alone.rounds == beside.rounds
    assert not set(wanted[:2].ids) & set(beside_again.ids)
    assert beside_again != alone_again
