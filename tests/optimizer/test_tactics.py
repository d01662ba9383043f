"""Tactics by name: ours and a stranger's come in through the same door."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.optimizer import Optimizer, Tactic, load_tactic, optimize, tactic_names
from hwsearch.run.config import RunConfig
from tests.optimizer.problems import Tabular, elastic_space

TABLE = Tabular(elastic_space(2))
LARGEST_LEFT = Tactic(
    propose=lambda history, n, seed, rng: history.space.enumerate(2000).unique(history.asked)[-n:],
    batch=7,
)


@pytest.fixture
def stranger(monkeypatch):
    """Registers one more tactic, named on the way."""
    from hwsearch import plugins

    ours = plugins.entry_points(group="hwsearch.tactics")

    def register(attribute):
        point = EntryPoint("theirs", f"{__name__}:{attribute}", "hwsearch.tactics")
        monkeypatch.setattr("hwsearch.plugins.entry_points", lambda group: [*ours, point])

    return register


def test_ours_are_registered():
    assert tactic_names() == ["additive", "hwsearch", "linas", "nsga2", "random"]
    for name in tactic_names():
        assert isinstance(load_tactic(name), Tactic)


def test_a_strangers_tactic_searches(stranger):
    stranger("LARGEST_LEFT")
    optimizer = Optimizer(TABLE.space, TABLE.objectives(), tactic="theirs")
    assert optimizer.batch == 7
    assert optimizer.ask() == TABLE.space.enumerate(2000)[-7:]
    assert RunConfig(tactic="theirs").tactic == "theirs"
    result = optimize(TABLE.space, TABLE.evaluate, TABLE.objectives(), budget=9, tactic="theirs")
    assert result.trials["round"].tolist() == [0] * 7 + [1] * 2
    with pytest.raises(InputError, match=r"unknown tactic 'ours'.*theirs"):
        load_tactic("ours")


def test_the_help_lists_what_is_registered(stranger, monkeypatch):
    from dataclasses import fields

    from hwsearch.run.setting import explanation

    (tactic,) = (each for each in fields(RunConfig) if each.name == "tactic")
    text = "How architectures are proposed."
    stranger("LARGEST_LEFT")
    names = "additive, hwsearch, linas, nsga2, random, theirs"
    assert explanation(tactic) == f"{text} Known: {names}."
    twice = [EntryPoint("one", f"package_{n}:TACTIC", "hwsearch.tactics") for n in "ab"]
    monkeypatch.setattr("hwsearch.plugins.entry_points", lambda group: twice)
    assert explanation(tactic) == text


def no_tactic(history, n, seed, rng):
    return history.space.smallest()


def test_what_is_no_tactic_is_refused(stranger):
    stranger("no_tactic")
    with pytest.raises(InputError, match=r"registered as tactic 'theirs' is <function.*Tactic\("):
        load_tactic("theirs")


def test_a_tactic_that_repeats_itself_is_refused(stranger, monkeypatch):
    monkeypatch.setitem(globals(), "REPEATS", Tactic(propose=no_tactic))
    stranger("REPEATS")
    optimizer = Optimizer(TABLE.space, TABLE.objectives(), tactic="theirs")
    first = optimizer.ask()
    with pytest.raises(InputError, match=f"{first.ids[0]} was proposed before"):
        optimizer.ask()
    assert optimizer.rounds == 1


def test_a_tactic_without_a_proposal_is_stood_in_for_by_chance(stranger, monkeypatch):
    silent = Tactic(propose=lambda history, n, seed, rng: history.space.sample(0, 0))
    monkeypatch.setitem(globals(), "SILENT", silent)
    stranger("SILENT")
    archs = Optimizer(TABLE.space, TABLE.objectives(), tactic="theirs", seed=5).ask()
    rng = np.random.default_rng((5, 1))
    assert archs == TABLE.space.sample_distinct(4, rng)
