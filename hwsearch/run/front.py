"""Which trials make the front, and which of them a person may want."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwsearch.constraints import Constraint, check_constraints, satisfied
from hwsearch.errors import InputError
from hwsearch.objectives import Objective, is_non_dominated, to_losses

if TYPE_CHECKING:
    import pandas as pd

Table = Mapping[str, NDArray[np.float64]]
Chances = Callable[[Constraint], NDArray[np.float64]]
"""``chances(constraint)``: (n_members,) probabilities that a member's true value keeps it."""

_SURE = re.compile(r"(.*[<>][^@]*)@(.*)")
_PERCENTAGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def front_rows(
    values: Table, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> NDArray[np.int64]:
    """Return the rows that satisfy every constraint and that no other such row dominates.

    Args:
        values: Name -> (n,) values of every objective and every constrained quantity.
        objectives: What is traded.
        constraints: What has to hold.

    Returns:
        Row numbers in ascending order.
    """
    n = len(next(iter(values.values())))
    keep = np.flatnonzero(satisfied(values, constraints)) if constraints else np.arange(n)
    losses = to_losses(np.column_stack([values[o.name][keep] for o in objectives]), objectives)
    return keep[is_non_dominated(losses)]


def contender_rows(
    values: Table,
    low: Table,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> NDArray[np.int64]:
    """Return the rows that may belong to the front once they are measured again.

    A row contends when nothing dominates it were its noisy values at the good end of their
    intervals, while all others stay as measured.

    Args:
        values: As for `front_rows`.
        low: Name -> (n,) good end of the interval, for the quantities that are noisy.
        objectives: What is traded.
        constraints: What has to hold, at the good end.
    """
    n = len(next(iter(values.values())))
    hopeful = {**values, **low}
    allowed = satisfied(hopeful, constraints) if constraints else np.ones(n, dtype=bool)
    measured = to_losses(np.column_stack([values[o.name] for o in objectives]), objectives)
    best = to_losses(np.column_stack([hopeful[o.name] for o in objectives]), objectives)
    feasible = satisfied(values, constraints) if constraints else np.ones(n, dtype=bool)
    rows = []
    for row in np.flatnonzero(allowed):
        others = measured[feasible & (np.arange(n) != row)]
        if is_non_dominated(np.vstack([best[row], others]))[0]:
            rows.append(row)
    return np.array(rows, dtype=np.int64)


def knee(front: "pd.DataFrame", objectives: Sequence[Objective]) -> str:
    """Return the key of the member nearest to the best of every objective at once.

    Each objective is scaled to [0, 1] over the front; the knee is the row of smallest Euclidean
    distance to the ideal point (compromise programming; Zeleny, 1973).
    """
    losses = to_losses(front[[o.name for o in objectives]].to_numpy(float), objectives)
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    return str(front["key"].iloc[int(np.argmin((scaled**2).sum(axis=1)))])


def _unknown_chances(constraint: Constraint) -> NDArray[np.float64]:
    raise InputError(f"how surely '{constraint}' holds is only known of a run: use Run.select")


def select_keys(
    front: "pd.DataFrame",
    objectives: Sequence[Objective],
    select: str,
    chances: Chances = _unknown_chances,
) -> list[str]:
    """Return the keys of the members that a selection names.

    Args:
        front: One row per member.
        objectives: Of the run.
        select: ``"all"``, ``"knee"``, a key, a constraint such as ``latency <= 12``, which takes
            every member that satisfies it, or a constraint with how sure it has to be, such as
            ``latency <= 12 @ 95%``, which takes the best one by the first objective.
        chances: How sure members are to keep a constraint.

    Raises:
        InputError: The selection is none of these, or nothing satisfies it.
    """
    keys = [str(key) for key in front["key"]]
    if select == "all":
        return keys
    if select == "knee":
        return [knee(front, objectives)]
    if select in keys:
        return [select]
    if not any(sign in select for sign in "<>"):
        raise InputError(
            f"selection {select!r} is not 'all', 'knee', a key of the front, or a constraint such "
            "as 'latency <= 12' or 'latency <= 12 @ 95%'"
        )
    sure = _SURE.fullmatch(select)
    columns = list(front.select_dtypes("number").columns)
    (constraint,) = check_constraints([sure[1] if sure else select], columns)
    column = constraint.objective
    if sure:
        return [_surest(front, objectives[0], constraint, _share(sure[2], select), chances)]
    chosen = front[satisfied({column: front[column].to_numpy(float)}, [constraint])]
    if chosen.empty:
        raise InputError(
            f"no member of the front satisfies {select!r}; its {column} goes from "
            f"{front[column].min():.4g} to {front[column].max():.4g}"
        )
    return [str(key) for key in chosen["key"]]


def _share(text: str, select: str) -> float:
    """Read ``95%`` as 0.95."""
    found = _PERCENTAGE.fullmatch(text)
    share = float(found[1]) / 100 if found else 0.0
    if not 0.0 < share < 1.0:
        raise InputError(
            f"selection {select!r} asks to be sure to {text.strip() or 'nothing'}; give a "
            "percentage above 0% and below 100%, as in 'latency <= 12 @ 95%'"
        )
    return share


def _surest(
    front: "pd.DataFrame", first: Objective, constraint: Constraint, share: float, chances: Chances
) -> str:
    """Return the best by the first objective of those that keep a constraint so surely."""
    reached = chances(constraint)
    sure = np.flatnonzero(reached >= share)
    if not len(sure):
        closest = int(np.argmax(reached))
        raise InputError(
            f"no member of the front is {100 * share:g}% sure to satisfy '{constraint}'; the "
            f"surest is {front['key'].iloc[closest]} with {100 * reached[closest]:.3g}%"
        )
    losses = to_losses(front[[first.name]].to_numpy(float), [first])[:, 0]
    return str(front["key"].iloc[int(sure[np.argmin(losses[sure])])])
