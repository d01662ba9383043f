"""Contract checks of tactics, and the seeded search histories that they are run on."""

import random  # noqa: TID251  # its state is what must not change
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsearch.constraints import check_constraints
from hwsearch.errors import ContractError
from hwsearch.objectives import Estimate, FloatArray, Objective
from hwsearch.optimizer.history import History, Told
from hwsearch.optimizer.tactics import Tactic
from hwsearch.space import Architectures, Choice, SearchSpace

SEED = 5
Values = Callable[[Architectures, int], Told | None]


SPACE = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        Choice("act", ("relu", "swish")),
        Choice("block1.width", (8, 16, 32)),
        Choice("block2.width", (8, 16, 32), ("depth", (2, 3))),
        Choice("block3.width", (8, 16, 32), ("depth", (3,))),
        Choice("block2.kernel", (3, 5), ("depth", (2, 3))),
        Choice("resolution", (160,)),
    ]
)


def size(archs: Architectures) -> FloatArray:
    """Return a cost of each architecture: its option positions and its active choices, summed."""
    total: FloatArray = archs.indices.sum(axis=1) * 3.0 + archs.active.sum(axis=1)
    return total


def quality(archs: Architectures, place: int) -> float:
    """Return a number that grows with an architecture's size and saturates."""
    return 80.0 - 30.0 * float(np.exp(-size(archs[[place]])[0] / 20.0))


def _usual(archs: Architectures, place: int) -> Told | None:
    return {"quality": quality(archs, place), "heat": float(place % 5)}


def _failing(archs: Architectures, place: int) -> Told | None:
    return None if place % 3 == 0 else _usual(archs, place)


def _in_part(archs: Architectures, place: int) -> Told | None:
    if place % 2:
        return _usual(archs, place)
    return {"quality": Estimate(quality(archs, place), 1.5), "heat": 1.0}


OBJECTIVES = (
    Objective("quality", "max"),
    Objective("size", "min", exact=size),
    Objective("heat", "min"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One state of a search: numbers of architectures told, pending, and to propose (``n``).

    The objectives are the first ``n_objectives`` of quality, size and heat.
    """

    name: str
    told: int = 0
    pending: int = 0
    n_objectives: int = 2
    constraints: tuple[str, ...] = ()
    values: Values = field(default=_usual)
    n: int = 4

    def history(self) -> History:
        """Return a new history in this state."""
        objectives = OBJECTIVES[: self.n_objectives]
        names = [objective.name for objective in objectives]
        history = History(SPACE, objectives, check_constraints(self.constraints, names))
        archs = SPACE.sample_distinct(self.told + self.pending, SEED)
        history.ask(archs)
        told = archs[: self.told]
        history.tell(told, [self.values(told, place) for place in range(self.told)])
        return history

    def __str__(self) -> str:
        return f"{self.n} wanted {self.name}"


SITUATIONS = (
    Situation(name="of a search that just begins"),
    Situation(name="while the first 8 are pending", pending=8),
    Situation(name="after 3 were told", told=3, n=1),
    Situation(name="after 60 were told, while 5 are pending", told=60, pending=5, n=7),
    Situation(name="after 60 were told", told=60, n=200),
    Situation(name="after 60 were told, one objective", told=60, n_objectives=1),
    Situation(name="after 60 were told, three objectives", told=60, n_objectives=3),
    Situation(name="within a bound", told=60, constraints=("size <= 30",)),
    Situation(name="where nothing keeps the bound", told=60, constraints=("quality >= 99",)),
    Situation(name="where a third failed", told=60, values=_failing),
    Situation(name="where all failed", told=60, values=lambda *_: None),
    Situation(name="where half is known in part", told=60, values=_in_part),
    Situation(
        name="where a measured objective is always the same",
        told=60,
        values=lambda *_: {"quality": 70.0, "heat": 0.0},
    ),
    Situation(name="with 6 left to propose", told=SPACE.size - 6),
)


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
            one, other = getattr(history, name), getattr(untouched, name)
            arrays = isinstance(one, np.ndarray)
            if not (np.array_equal(one, other, equal_nan=True) if arrays else one == other):
                yield f"{situation}: it changed history.{name}; the search notes what is proposed"


def decides_from_the_history_alone(tactic: Tactic) -> Iterator[str]:
    """An equal history, seed and round give the same proposals, regardless of earlier calls."""
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
            random.seed(place)
            np.random.seed(place)  # noqa: NPY002
            before = _global_states()
            _proposed(tactic, situation, situation.history())
            if _global_states() != before:
                yield (
                    f"{situation}: it draws from the global generator of numpy or random, or "
                    "seeds it; take the given one"
                )
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002


def _proposed(tactic: Tactic, situation: Situation, history: History) -> Architectures:
    rng = np.random.default_rng(SEED)
    try:
        return tactic.propose(history, situation.n, SEED, rng)
    except Exception as error:
        raise ContractError(f"{situation}: it raised {type(error).__name__}: {error}") from error


def _global_states() -> tuple[object, object]:
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), (state["state"]["key"].tobytes(), state["state"]["pos"])
