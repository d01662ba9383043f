"""One call finds what is wrong with a tactic, and says it so that its author can mend it."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest

from hwsearch.optimizer import Tactic, load_tactic, tactic_names
from hwsearch.optimizer.tactics import propose_by_nsga2, propose_random
from hwsearch.space import Choice, SearchSpace
from hwsearch.testing import TACTIC_CHECKS, ContractError, check_tactic
from hwsearch.testing.contracts import owed_by

BEGINS, REPEATS = "proposes_for_every_history", "proposes_nothing_twice"
CHANGES, DECIDES = "leaves_the_history_as_it_is", "decides_from_the_history_alone"
GLOBAL = "global_randomness_is_untouched"


def impatient(history, n, seed, rng):
    """Cannot do without results."""
    best = history.told[[int(np.nanargmin(history.losses[:, 0]))]]
    return history.space.mutate(best, rng).unique(history.asked)


def generous(history, n, seed, rng):
    return propose_random(history, n + 1, seed, rng)


def listing(history, n, seed, rng):
    return list(propose_random(history, n, seed, rng))


def astray(history, n, seed, rng):
    return SearchSpace([Choice("width", (1, 2))]).smallest()


def forgetful(history, n, seed, rng):
    return history.space.sample_distinct(n, rng)


def doubling(history, n, seed, rng):
    archs = propose_random(history, max(n // 2, 1), seed, rng)
    return archs[[*range(len(archs)), *range(len(archs))]][:n]


def officious(history, n, seed, rng):
    archs = propose_random(history, n, seed, rng)
    history.ask(archs)
    return archs


def tidy(history, n, seed, rng):
    history.values[np.isnan(history.values)] = 0.0
    return propose_random(history, n, seed, rng)


def counting(history, n, seed, rng):
    counting.calls += 1
    return propose_random(history, n, seed, np.random.default_rng(counting.calls))


counting.calls = 0


def drawing(history, n, seed, rng):
    return propose_random(history, n, seed, np.random.default_rng(random.randrange(2**32)))


def seeding(history, n, seed, rng):
    np.random.seed(seed)  # noqa: NPY002
    return propose_random(history, n, seed, rng)


# What each breaks, which checks fail in its wake, and what is said of it.
BROKEN = {
    propose_random: (("is_a_tactic",), r"it is a function; write TACTIC = Tactic\(propose=...\)"),
    replace(load_tactic("random"), batch=0): (
        ("is_a_tactic",),
        r"batch is 0; give a whole number",
    ),
    Tactic(propose=impatient): (
        (BEGINS,),
        r"4 wanted of a search that just begins: it raised ValueError: All-NaN|empty sequence",
    ),
    Tactic(propose=generous): ((BEGINS,), r"4 wanted of .*: 5 came back; return at most as many"),
    Tactic(propose=listing): ((BEGINS,), r"\[Architecture\(.* came back; return Architectures of"),
    Tactic(propose=astray): ((BEGINS,), r"Architectures\(1 of SearchSpace\(1 choices.* came back"),
    Tactic(propose=forgetful): (
        (REPEATS,),
        r"200 wanted after 60 .*: \w{16} was asked for before",
    ),
    Tactic(propose=doubling): (
        (REPEATS,),
        r"an architecture came back twice; return found.unique",
    ),
    Tactic(propose=officious): ((CHANGES, REPEATS), r"just begins: it changed history.asked; the"),
    Tactic(propose=tidy): (
        (CHANGES,),
        r"4 wanted where a third failed: it changed history.values",
    ),
    Tactic(propose=counting): ((DECIDES,), r"an equal history gave other proposals the second"),
    Tactic(propose=drawing): (
        (GLOBAL, DECIDES),
        r"it draws from the global generator of numpy or",
    ),
    Tactic(propose=seeding): ((GLOBAL,), r"it draws from the global generator of numpy or random"),
}


@pytest.fixture(autouse=True)
def _quick_linas(monkeypatch):
    monkeypatch.setattr("hwsearch.optimizer.linas.GENERATIONS", 3)
    monkeypatch.setattr("hwsearch.optimizer.linas._RIDGE", {"alpha": [1.0]})
    monkeypatch.setattr("hwsearch.optimizer.linas._SVR", {"C": [10.0]})


@pytest.mark.parametrize("check", TACTIC_CHECKS)
@pytest.mark.parametrize("name", tactic_names())
def test_every_registered_tactic_does_what_it_owes(name, check):
    assert list(TACTIC_CHECKS[check](load_tactic(name))) == []


def test_a_sound_tactic_passes():
    check_tactic(Tactic(propose=propose_by_nsga2))


@pytest.mark.parametrize("tactic", BROKEN, ids=lambda t: getattr(t, "propose", t).__name__)
def test_a_broken_one_fails_with_what_is_wrong_with_it(tactic):
    checks, says = BROKEN[tactic]
    with pytest.raises(ContractError) as caught:
        check_tactic(tactic)
    assert set(caught.value.failed) == set(checks)
    assert re.search(says, str(caught.value.failed[checks[0]]))
    assert all(owed_by(TACTIC_CHECKS[check]) in str(caught.value) for check in checks)
    assert ("were not run" in str(caught.value)) == (checks[0] in ("is_a_tactic", BEGINS))


def test_every_check_is_broken_by_one():
    assert {checks[0] for checks, _ in BROKEN.values()} == set(TACTIC_CHECKS)


def test_messages_name_the_tactic():
    with pytest.raises(ContractError, match="tactic 'forgetful' does not do what a tactic owes"):
        check_tactic(Tactic(propose=forgetful))
    with pytest.raises(ContractError, match="tactic 'theirs' does not"):
        check_tactic(Tactic(propose=forgetful), "theirs")
