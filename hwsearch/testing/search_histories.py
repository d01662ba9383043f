"""Seeded search histories for the checks of tactics."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hwsearch.constraints import check_constraints
from hwsearch.objectives import Estimate, FloatArray, Objective
from hwsearch.optimizer.history import History, Told
from hwsearch.space import Architectures, Choice, SearchSpace

SEED = 5
Values = Callable[[Architectures, int], Told | None]


def _blocks_space() -> SearchSpace:
    choices = [Choice("depth", (1, 2, 3)), Choice("act", ("relu", "swish"))]
    for block in range(1, 4):
        active = ("depth", tuple(range(block, 4))) if block > 1 else None
        choices.append(Choice(f"block{block}.width", (8, 16, 32), active))
    choices.append(Choice("block2.kernel", (3, 5), ("depth", (2, 3))))
    return SearchSpace([*choices, Choice("resolution", (160,))])


SPACE = _blocks_space()


def size(archs: Architectures) -> FloatArray:
    """Return a cost of each architecture: its option positions and its active choices, summed."""
    total: FloatArray = archs.indices.sum(axis=1) * 3.0 + archs.active.sum(axis=1)
    return total


def quality(archs: Architectures, place: int) -> float:
    """Return a number that grows with an architecture's size and saturates."""
    return 80.0 - 30.0 * float(np.exp(-size(archs[[place]])[0] / 20.0))


def _usual(archs: Architectures, place: int) -> Told | None:
    return {"quality": quality(archs, place), "heat": float(place % 5)}


def _all_failing(archs: Architectures, place: int) -> Told | None:
    del archs, place
    return None


def _all_alike(archs: Architectures, place: int) -> Told | None:
    del archs, place
    return {"quality": 70.0, "heat": 0.0}


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
        if len(archs):
            history.ask(archs)
        told = archs[: self.told]
        if len(told):
            history.tell(told, [self.values(told, place) for place in range(len(told))])
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
    Situation(name="where all failed", told=60, values=_all_failing),
    Situation(name="where half is known in part", told=60, values=_in_part),
    Situation(name="where a measured objective is always the same", told=60, values=_all_alike),
    Situation(name="with 6 left to propose", told=SPACE.size - 6),
)
