"""Contract checks of tactics."""

import random  # noqa: TID251  # its state is what must not change
from collections.abc import Iterator
from typing import Any

import numpy as np

from hwsearch.errors import ContractError
from hwsearch.optimizer.history import History
from hwsearch.optimizer.tactics import Tactic
from hwsearch.space import Architectures
from hwsearch.testing.check_report import first_problems, owed_by, report
from hwsearch.testing.search_histories import SEED, SITUATIONS, Situation


def is_a_tactic(tactic: object) -> Iterator[str]:
    """What is registered is a `hwsearch.optimizer.Tactic` with a usable batch."""
    if not isinstance(tactic, Tactic):
        yield f"it is a {type(tactic).__name__}; write TACTIC = Tactic(propose=...)"
        return
    if not callable(tactic.propose):
        yield f"propose is {tactic.propose!r}; give a function"
    batch: object = tactic.batch
    if not isinstance(batch, int) or batch < 1:
        yield f"batch is {batch!r}; give a whole number from 1 up"


def proposes_for_every_history(tactic: Tactic) -> Iterator[str]:
    """It proposes architectures of the space, at most as many as wanted, in every situation."""
    for situation in SITUATIONS:
        history = situation.history()
        found: object = _proposed(tactic, situation, history)
        if not isinstance(found, Architectures) or found.space != history.space:
            yield f"{situation}: {found!r} came back; return Architectures of history.space"
        elif len(found) > situation.n:
            yield f"{situation}: {len(found)} came back; return at most as many as are wanted"


def proposes_nothing_twice(tactic: Tactic) -> Iterator[str]:
    """Proposals are distinct, and none was asked for before."""
    for situation in SITUATIONS:
        history = situation.history()
        found = _proposed(tactic, situation, history)
        if len(found.unique()) < len(found):
            yield f"{situation}: an architecture came back twice; return found.unique()"
        if known := set(found.ids) & set(history.asked.ids):
            yield (
                f"{situation}: {min(known)} was asked for before; return "
                "found.unique(history.asked)"
            )


def leaves_the_history_as_it_is(tactic: Tactic) -> Iterator[str]:
    """Asking changes nothing of the history."""
    for situation in SITUATIONS:
        history, untouched = situation.history(), situation.history()
        _proposed(tactic, situation, history)
        for name in ("asked", "told", "values", "deviations"):
            if not _equal(getattr(history, name), getattr(untouched, name)):
                yield f"{situation}: it changed history.{name}; the search notes what is proposed"


def decides_from_the_history_alone(tactic: Tactic) -> Iterator[str]:
    """An equal history, seed and round give the same proposals, whatever was asked before."""
    first = [_proposed(tactic, situation, situation.history()) for situation in SITUATIONS]
    again = [_proposed(tactic, s, s.history()) for s in reversed(SITUATIONS)]
    for situation, one, other in zip(SITUATIONS, first, reversed(again), strict=True):
        if one != other:
            yield (
                f"{situation}: an equal history gave other proposals the second time; draw from "
                "the given generator only, and keep nothing between calls"
            )


def global_randomness_is_untouched(tactic: Tactic) -> Iterator[str]:
    """It draws from the given generator, not from those that a whole process shares."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        for place, situation in enumerate(SITUATIONS):
            history = situation.history()
            before = _new_global_states(place)
            _proposed(tactic, situation, history)
            if _global_states() != before:
                yield (
                    f"{situation}: it draws from the global generator of numpy or random, or "
                    "seeds it; take the given one"
                )
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002


FIRST = (is_a_tactic, proposes_for_every_history)
THEN = (
    proposes_nothing_twice,
    leaves_the_history_as_it_is,
    decides_from_the_history_alone,
    global_randomness_is_untouched,
)
TACTIC_CHECKS = {problems.__name__: problems for problems in (*FIRST, *THEN)}


def check_tactic(tactic: Tactic, name: str = "") -> None:
    """Run all contract checks on a tactic, in about a dozen states of a small search.

    Args:
        tactic: The tactic registered, or to be registered, in the group ``hwsearch.tactics``.
        name: Its name in messages; by default that of its function.

    Raises:
        ContractError: Checks failed; the text names each with its findings and what to do.
    """
    name = name or getattr(getattr(tactic, "propose", tactic), "__name__", type(tactic).__name__)
    owed = {check: owed_by(problems) for check, problems in TACTIC_CHECKS.items()}
    for problems in FIRST:
        if found := first_problems(problems, tactic):
            only = {problems.__name__: found}
            note = "\nThe checks after it were not run: they need this one to pass."
            raise ContractError(report("tactic", name, owed, only) + note, only)
    failed = {
        problems.__name__: found
        for problems in THEN
        if (found := first_problems(problems, tactic))
    }
    if failed:
        raise ContractError(report("tactic", name, owed, failed), failed)


def _proposed(tactic: Tactic, situation: Situation, history: History) -> Architectures:
    rng = np.random.default_rng(SEED)
    try:
        return tactic.propose(history, situation.n, SEED, rng)
    except Exception as error:
        raise ContractError(f"{situation}: it raised {type(error).__name__}: {error}") from error


def _equal(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return one == other


def _new_global_states(seed: int) -> tuple[object, object]:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return _global_states()


def _global_states() -> tuple[object, object]:
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), (state["state"]["key"].tobytes(), state["state"]["pos"])
