"""Which trials make the front, and which of them a person may want."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError
from hwsearch.objectives import (
    Constraint,
    Objective,
    check_constraints,
    is_non_dominated,
    satisfied,
    to_losses,
)

if TYPE_CHECKING:
    import pandas as pd

Table = Mapping[str, NDArray[np.float64]]


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


def select_keys(front: "pd.DataFrame", objectives: Sequence[Objective], select: str) -> list[str]:
    """Return the keys of the members that a selection names.

    Args:
        front: One row per member.
        objectives: Of the run.
        select: ``"all"``, ``"knee"``, a key, or a constraint such as ``latency <= 12``, which
            takes every member that satisfies it.

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
            "as 'latency <= 12'"
        )
    numeric = front.select_dtypes("number")
    (constraint,) = check_constraints([select], list(numeric.columns))
    column = constraint.objective
    chosen = front[satisfied({column: front[column].to_numpy(float)}, [constraint])]
    if chosen.empty:
        raise InputError(
            f"no member of the front satisfies {select!r}; its {column} goes from "
            f"{front[column].min():.4g} to {front[column].max():.4g}"
        )
    return [str(key) for key in chosen["key"]]
