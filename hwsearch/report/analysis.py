"""Analysis of a run: recommended members, choices in common, scores, timings, constraints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import kendalltau

from hwsearch.constraints import Constraint, satisfied
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import BATCH_LATENCY, LATENCY, paired_scores
from hwsearch.objectives import to_losses
from hwsearch.quantities import quantity_of
from hwsearch.report.precisions import block_of, precision_columns
from hwsearch.report.run_data import RunData, stated
from hwsearch.run.front import knee
from hwsearch.run.front_probability import constraint_probabilities
from hwsearch.run.search_summary import Comparison, compared_cost, times_better
from hwsearch.trials import Measurement

CLEAR_TREND: Final = 0.6
LEAST_MEMBERS: Final = 4
_SURE: Final = 0.95
_NEAR_BEST: Final = 1.0  # of the first objective's unit, where that is percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A recommended member.

    ``sure`` is the probability that its true value keeps the constraint, ``versus`` compares it
    with the largest subnet; each may be None.
    """

    wish: str
    key: str
    sure: float | None = None
    versus: Comparison | None = None


def picks(data: RunData) -> list[Pick]:
    """Return the recommended members: balanced, best, within each constraint, fastest."""
    members = data.members
    if members is None:
        return []
    objectives, keys, found = data.objectives, data.best, []
    losses = to_losses(members[[o.name for o in objectives]].to_numpy(float), objectives)

    def pick(wish: str, row: int, sure: float | None = None) -> None:
        versus = beside_largest(data, keys[row])
        found.append(Pick(wish=wish, key=keys[row], sure=sure, versus=versus))

    best = int(np.argmin(losses[:, 0]))
    pick("the knee: the best compromise", keys.index(knee(members, objectives)))
    if not data.constraints:
        pick(f"the best {data.up.name}", best)
    for constraint in data.constraints:
        sure = _chances(data, constraint)
        pick(f"the best {data.up.name} with {constraint}", best, sure[best])
        enough = [row for row, share in enumerate(sure) if share is not None and share >= _SURE]
        if enough:
            row = min(enough, key=lambda row: losses[row, 0])
            pick(f"the best that is {_SURE:.0%} sure of {constraint}", row, sure[row])
    near = np.flatnonzero(losses[:, 0] <= losses[best, 0] + _NEAR_BEST)
    for column, objective in enumerate(objectives[1:], start=1):
        least = quantity_of(objective.name).superlative or f"best {objective.name}"
        if data.up.unit == "%":
            among = near[np.argmin(losses[near, column])]
            pick(f"the {least} within 1 point of the best", int(among))
        pick(f"the {least}", int(np.argmin(losses[:, column])))
    return found


def _chances(data: RunData, constraint: Constraint) -> Sequence[float | None]:
    seed = data.run.config.seed
    try:
        found = constraint_probabilities(constraint, data.members, data.measurements, seed)
    except InputError:
        return [None] * len(data.best)  # no intervals, or a store of the first version
    return [float(each) for each in found]


def beside_largest(data: RunData, key: str) -> Comparison | None:
    """Compare a member with the largest subnet, by the summary where it has the comparison."""
    summary = data.summary
    if summary is None or summary.largest is None:
        return None
    known = next((versus for versus in summary.versus if versus.key == key), None)
    (largest,) = data.space.largest().ids
    cost = compared_cost(data.objectives)
    if known is not None or key == largest or cost is None:
        return known
    own = data.members_by_key.get(largest, summary.largest)[cost]
    scores = data.shipped_scores(summary.metric)
    points, low, high = paired_scores(scores.get(key), scores.get(largest))
    return Comparison(
        member="",
        key=key,
        cost=cost,
        times=times_better(cost, float(data.members_by_key[key][cost]), float(own)),
        points=points,
        low=low,
        high=high,
    )


def shared(data: RunData) -> dict[str, Any] | None:
    """Return the choices that members have in common; None for fewer than two members.

    ``same`` has [choice, option, number of members with it] where all agree, with one entry for
    blocks that agree in a precision, ``rising`` the
    choices that grow with the cost, the clearest first, ``along`` the objective that sorts the
    ``n`` members.
    """
    keys = by_cost(data)
    if len(keys) < 2:
        return None
    archs = data.archs[[data.place[key] for key in keys]]
    same = []
    trends: list[tuple[float, str]] = []
    blocks = precision_columns(data.space.choices)
    alike: list[tuple[str, str | None]] = []
    for position, choice in enumerate(data.space.choices):
        active = archs.active[:, position]
        options = archs.indices[active, position]
        if len(choice.options) < 2 or active.sum() < 2:
            continue
        if np.ptp(options) == 0 and position in blocks:
            alike.append((str(choice.options[options[0]]), block_of(choice)))
        elif np.ptp(options) == 0:
            same.append([choice.name, str(choice.options[options[0]]), int(active.sum())])
        elif choice.ordered and active.sum() >= LEAST_MEMBERS:
            tau = kendalltau(options, np.arange(len(options))).statistic
            trends.append((float(tau), choice.name))
    for option in dict.fromkeys(option for option, _ in alike):
        names = " ".join(str(block) for each, block in alike if each == option)
        same.append([f"precision of {names}", option, len(keys)])
    rising = [name for tau, name in sorted(trends, reverse=True) if tau >= CLEAR_TREND]
    along = (data.across or data.up).name
    return {"same": same, "rising": rising, "n": len(keys), "along": along}


def by_cost(data: RunData) -> list[str]:
    """Return the keys of the best subnets in ascending order of the horizontal axis."""
    along = data.across or data.up
    if data.members is not None:
        return [str(key) for key in data.members.sort_values(along.name)["key"]]
    return sorted(data.best, key=lambda key: data.values[along.name][data.place[key]])


def scores_on_both(data: RunData) -> list[dict[str, Any]]:
    """Return the members' scores on search and report images, with intervals."""
    name = data.metric
    return [
        {"key": key, "search": stated(row, name), "report": stated(row, f"{name}_report")}
        for key, row in data.members_by_key.items()
        if name is not None and f"{name}_report" in row
    ]


def timings(data: RunData) -> list[Measurement]:
    """Return the latencies that this run measured, in order."""
    names, known = (LATENCY, BATCH_LATENCY), ("search", "bridge", "confirm")
    return [m for m in data.measurements if m.quantity in names and m.purpose in known]


def warned(data: RunData) -> list[tuple[int, str]]:
    """Return (count, example) of each kind of timing warning, most frequent first."""
    kinds: dict[str, list[str]] = {}
    for timing in timings(data):
        for text in timing.details.get("warnings", ()):
            words = [w for w in str(text).split()[:6] if not any(c.isdigit() for c in w)]
            kinds.setdefault(" ".join(words), []).append(str(text))
    return sorted(((len(texts), texts[0]) for texts in kinds.values()), reverse=True)


def keeps(data: RunData) -> list[bool | None]:
    """Return whether each trial keeps every constraint by its search values; None if unknown."""
    if not data.constraints:
        return [None] * len(data.trials)
    names = [c.objective for c in data.constraints]
    kept = satisfied({name: data.values[name] for name in names}, data.constraints).tolist()
    values = np.column_stack([data.values[name] for name in names])
    known = ~np.isnan(values)
    return [each if all(row) else None for each, row in zip(kept, known.tolist(), strict=True)]
