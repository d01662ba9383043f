"""What a report says in words and tables: what to ship, what members share, how well it went."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import kendalltau

from hwsearch.constraints import Constraint, satisfied
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.objectives import to_losses
from hwsearch.quantities import main_cost, superlative_of
from hwsearch.report.facts import Facts, paired_scores, stated
from hwsearch.run.front import knee
from hwsearch.run.front_probability import constraint_probabilities
from hwsearch.run.search_summary import Comparison
from hwsearch.trials import Measurement

CLEAR_TREND: Final = 0.6
LEAST_MEMBERS: Final = 4
_SURE: Final = 0.95
_NEAR_BEST: Final = 1.0  # of the first objective's unit, where that is percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One answer to: which one should I ship?

    Attributes:
        wish: What somebody may want.
        key: The member that fulfils it.
        sure: Probability that its true value keeps the constraint; None without one.
        versus: It beside the largest subnet; None where that was not measured, or is this one.
    """

    wish: str
    key: str
    sure: float | None = None
    versus: Comparison | None = None


def picks(facts: Facts) -> list[Pick]:
    """The members that a person may want: balanced, best, within each constraint, fastest."""
    members = facts.members
    if members is None:
        return []
    objectives = facts.objectives
    losses = to_losses(members[[o.name for o in objectives]].to_numpy(float), objectives)
    keys = [str(key) for key in members["key"]]
    best = keys[int(np.argmin(losses[:, 0]))]
    wishes: list[tuple[str, str, float | None]] = [
        ("the knee: the best compromise", knee(members, objectives), None)
    ]
    if not facts.constraints:
        wishes.append((f"the best {facts.up.name}", best, None))
    for constraint in facts.constraints:
        sure = _chances(facts, constraint)
        at_best = None if sure is None else sure[keys.index(best)]
        wishes.append((f"the best {facts.up.name} with {constraint}", best, at_best))
        if sure is None:
            continue
        enough = [row for row, share in enumerate(sure) if share >= _SURE]
        if enough:
            row = min(enough, key=lambda row: losses[row, 0])
            text = f"the best that is {_SURE:.0%} sure of {constraint}"
            wishes.append((text, keys[row], sure[row]))
    near = losses[:, 0] <= losses[:, 0].min() + _NEAR_BEST
    for column, objective in enumerate(objectives[1:], start=1):
        least = superlative_of(objective.name)
        if facts.up.unit == "%":
            among = np.flatnonzero(near)
            row = int(among[np.argmin(losses[among, column])])
            wishes.append((f"the {least} within 1 point of the best", keys[row], None))
        wishes.append((f"the {least}", keys[int(np.argmin(losses[:, column]))], None))
    return [
        Pick(wish=wish, key=key, sure=sure, versus=beside_largest(facts, key))
        for wish, key, sure in wishes
    ]


def _chances(facts: Facts, constraint: Constraint) -> list[float] | None:
    try:
        found = constraint_probabilities(
            constraint, facts.members, facts.measurements, facts.run.config.seed
        )
    except InputError:
        return None  # a quantity without intervals, or a store of the first version
    return [float(each) for each in found]


def beside_largest(facts: Facts, key: str) -> Comparison | None:
    """A member beside the largest subnet: as the summary has it, else from the same numbers."""
    summary = facts.summary
    if summary is None or summary.largest is None:
        return None
    known = next((versus for versus in summary.versus if versus.key == key), None)
    (largest,) = facts.space.largest().ids
    costs = [o.name for o in facts.objectives if o.direction == "min"]
    if known is not None or key == largest or not costs:
        return known
    cost = main_cost(costs)
    assert facts.members is not None
    rows = facts.members.set_index("key")[cost]
    own = rows.get(largest, summary.largest[cost])
    scores = facts.of_search(summary.metric)
    points, low, high = paired_scores(scores.get(key), scores.get(largest))
    return Comparison(
        member="",
        key=key,
        cost=cost,
        times=float(own) / float(rows[key]),
        points=points,
        low=low,
        high=high,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the members have in common.

    Attributes:
        same: Choice -> (option, members in which it is active), where all of these agree.
        rising: Choices that grow with the cost along the members, the clearest first.
        n: How many members there are.
        along: The objective that members are sorted by.
    """

    same: Mapping[str, tuple[str, int]]
    rising: tuple[str, ...]
    n: int
    along: str


def shared(facts: Facts) -> Shared | None:
    """Compare the members choice by choice; None of fewer than two."""
    keys = by_cost(facts)
    if len(keys) < 2:
        return None
    archs = facts.archs[[facts.place[key] for key in keys]]
    same: dict[str, tuple[str, int]] = {}
    trends: list[tuple[float, str]] = []
    for position, choice in enumerate(facts.space.choices):
        active = archs.active[:, position]
        options = archs.indices[active, position]
        if len(choice.options) < 2 or active.sum() < 2:
            continue
        if np.ptp(options) == 0:
            same[choice.name] = (str(choice.options[options[0]]), int(active.sum()))
        elif choice.ordered and active.sum() >= LEAST_MEMBERS:
            trends.append(
                (float(kendalltau(options, np.arange(len(options))).statistic), choice.name)
            )
    rising = [name for tau, name in sorted(trends, reverse=True) if tau >= CLEAR_TREND]
    along = facts.across or facts.up
    return Shared(same=same, rising=tuple(rising), n=len(keys), along=along.name)


def by_cost(facts: Facts) -> list[str]:
    """Keys of the members, or of the best so far, by what plots show from left to right."""
    along = facts.across or facts.up
    if facts.members is not None:
        return [str(key) for key in facts.members.sort_values(along.name)["key"]]
    return sorted(facts.best, key=lambda key: facts.values[along.name][facts.place[key]])


def scores_on_both(facts: Facts) -> list[dict[str, Any]]:
    """Score of every member on search images and on report images, with intervals."""
    name = facts.metric
    if facts.members is None or name is None or f"{name}_report" not in facts.members:
        return []
    return [
        {
            "key": str(row["key"]),
            "search": stated(row, name),
            "report": stated(row, f"{name}_report"),
        }
        for row in facts.members.to_dict("records")
    ]


def timings(facts: Facts) -> list[Measurement]:
    """Latencies that this run measured, in order."""
    known = ("search", "confirm")
    return [m for m in facts.measurements if m.quantity == LATENCY and m.purpose in known]


def warned(facts: Facts) -> list[tuple[int, str]]:
    """(how often, an example) of every kind of warning of the timings, the most frequent first."""
    kinds: dict[str, list[str]] = {}
    for timing in timings(facts):
        for text in timing.details.get("warnings", ()):
            kinds.setdefault(" ".join(_words(str(text))), []).append(str(text))
    return sorted(((len(texts), texts[0]) for texts in kinds.values()), reverse=True)


def _words(text: str) -> Iterator[str]:
    """The words that a kind of warning begins with, without its numbers."""
    return (word for word in text.split()[:6] if not any(c.isdigit() for c in word))


def keeps(facts: Facts) -> list[bool | None]:
    """Whether each trial keeps every constraint, by the search's values; None where unknown."""
    if not facts.constraints:
        return [None] * len(facts.trials)
    names = [c.objective for c in facts.constraints]
    kept = satisfied({name: facts.values[name] for name in names}, facts.constraints).tolist()
    values = np.column_stack([facts.values[name] for name in names])
    known = ~np.isnan(values)
    return [each if all(row) else None for each, row in zip(kept, known.tolist(), strict=True)]
