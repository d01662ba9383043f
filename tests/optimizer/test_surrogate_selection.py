"""Which surrogate a search predicts an objective by."""

import numpy as np
import pytest

from hwsearch import Objective, Optimizer
from hwsearch.optimizer import posterior
from hwsearch.optimizer.posterior import Posterior, surrogate_selection
from hwsearch.prediction.selection import Selection, SurrogateScore
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace([Choice(f"block{i}.width", (1, 2, 3, 4)) for i in range(8)])


def told(n, split=4):
    optimizer = Optimizer(SPACE, [Objective("top1", "max")], seed=0)
    archs = SPACE.sample_distinct(40, 0)[:n]
    for start in range(0, n, split):
        part = archs[start : start + split]
        values = part.indices.sum(axis=1) + 0.1 * part.indices[:, 0] ** 2
        optimizer.tell(part, [{"top1": float(value)} for value in values])
    return optimizer


def scored(name, tau, coverage):
    return SurrogateScore(
        name=name, tau=tau, log_likelihood=0.0, coverage=coverage, rmse=1.0, mae=1.0
    )


@pytest.fixture
def compared(monkeypatch):
    """Numbers of values that surrogates were compared on; the linear one wins from 18 on."""
    seen = []

    def choose(rows, values, space, noise, **_):
        assert rows.shape[0] == len(values) == len(noise)
        seen.append(len(values))
        scores = (scored("gaussian-process", 0.5, 0.75), scored("linear", 0.9, 0.94))
        name = "linear" if len(values) >= 18 else "gaussian-process"
        return Selection(name=name, scores=scores)

    monkeypatch.setattr(posterior, "select_surrogate", choose)
    return seen


def test_nothing_is_compared_on_a_handful_of_values(compared):
    assert surrogate_selection(told(11).history, 0) is None
    assert compared == []


def test_compared_again_once_values_are_half_as_many_more(compared):
    for n in (12, 17, 18, 26, 27):
        surrogate_selection(told(n).history, 0)
    assert compared == [12, 12, 18, 18, 27]


def test_a_comparison_is_made_once(compared):
    optimizer = told(12)
    for _ in range(3):
        Posterior(optimizer.history)
    assert compared == [12]


def test_the_choice_depends_on_values_and_not_on_when_it_is_made():
    watched = told(18)
    for history in (watched.history, told(18, split=6).history):
        found = surrogate_selection(history, 0)
        assert found is not None
        assert found == surrogate_selection(told(26).history, 0)


def test_what_was_chosen_predicts(compared):
    predictor = Posterior(told(18).history)._predictors[0]
    assert predictor._name == "linear"


def test_a_change_is_said_with_what_speaks_for_it(compared):
    optimizer = told(16)
    surrogate_selection(optimizer.history, 0)
    assert optimizer.remarks == []
    more = SPACE.sample_distinct(4, 1, exclude=optimizer.history.told)
    optimizer.tell(more, [{"top1": float(v)} for v in np.arange(4)])
    for _ in range(2):
        surrogate_selection(optimizer.history, 0)
    assert optimizer.remarks == [
        "top1 is predicted by the linear surrogate in place of the gaussian-process: "
        "cross-validated on 18 values, its tau is 0.90 instead of 0.50, and its 95% intervals "
        "hold 94% instead of 75%"
    ]


def test_a_search_goes_the_same_way_whoever_looked_in_between():
    watched, plain = told(12), told(12)
    for optimizer in (watched, plain):
        for _ in range(3):
            archs = optimizer.ask(4)
            if optimizer is watched:
                optimizer.expected_gain(10)
            optimizer.tell(archs, [{"top1": float(v)} for v in archs.indices.sum(axis=1)])
    assert watched.history.told.ids == plain.history.told.ids
