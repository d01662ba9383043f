"""Selection of the front, of its contenders and of members."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.constraints import Constraint, check_constraints, satisfied
from hwsearch.errors import InputError
from hwsearch.objectives import Objective, is_non_dominated, to_losses

if TYPE_CHECKING:
    import pandas as pd

Table = Mapping[str, NDArray[Any]]
# Returns the probability that each member's true value keeps a constraint, (n_members,).
Chances = Callable[[Constraint], NDArray[np.float64]]

_SURE = re.compile(r"(.*[<>][^@]*)@(.*)")


def front_rows(
    values: Table, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> NDArray[np.int64]:
    """Return the rows, ascending, that satisfy every constraint and are not dominated.

    ``values`` has name -> (n,) values of every objective and every constrained quantity.
    """
    keep = np.flatnonzero(satisfied(values, constraints))
    return keep[is_non_dominated(losses_of(values, objectives)[keep])]


def contender_rows(
    values: Table, low: Table, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> NDArray[np.int64]:
    """Return the rows that may be on the front after another measurement.

    A row is a contender if nothing dominates it when its noisy values are at the good end of their
    intervals, ``low``, (n,) each, while all others stay as measured.
    """
    hopeful = {**values, **low}
    measured, best = losses_of(values, objectives), losses_of(hopeful, objectives)
    feasible = satisfied(values, constraints)
    rows = []
    for row in np.flatnonzero(satisfied(hopeful, constraints)):
        others = measured[feasible & (np.arange(len(measured)) != row)]
        if is_non_dominated(np.vstack([best[row], others]))[0]:
            rows.append(row)
    return np.array(rows, dtype=np.int64)


def losses_of(
    values: "Table | pd.DataFrame", objectives: Sequence[Objective]
) -> NDArray[np.float64]:
    """Return the losses ``(n, n_objectives)`` of values by name."""
    return to_losses(np.column_stack([values[o.name] for o in objectives]), objectives)


def knee(front: "Table | pd.DataFrame", objectives: Sequence[Objective]) -> str:
    """Return the key of the member nearest to the best value of all objectives.

    Each objective is scaled to [0, 1] over the front; the knee is the row of smallest Euclidean
    distance to the ideal point (compromise programming; Zeleny, 1973).
    """
    losses = losses_of(front, objectives)
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    return str(np.asarray(front["key"])[np.argmin((scaled**2).sum(axis=1))])


def select_keys(
    front: "pd.DataFrame", objectives: Sequence[Objective], select: str, chances: Chances
) -> list[str]:
    """Return the keys of the selected members; raise InputError if there are none.

    ``select`` is ``"all"``, ``"knee"``, a key, a constraint such as ``latency <= 12``, which
    selects every member that satisfies it, or a constraint with a probability, such as
    ``latency <= 12 @ 95%``, which selects the best member by the first objective.
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
    if sure:
        return [_surest(front, objectives[0], constraint, _share(sure[2], select), chances)]
    column = constraint.objective
    chosen = front[satisfied({column: front[column].to_numpy(float)}, [constraint])]
    if chosen.empty:
        raise InputError(
            f"no member of the front satisfies {select!r}; its {column} goes from "
            f"{front[column].min():.4g} to {front[column].max():.4g}"
        )
    return [str(key) for key in chosen["key"]]


def _share(text: str, select: str) -> float:
    """Parse ``95%`` as 0.95."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
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
    """Return the best member by the first objective that satisfies a constraint so probably."""
    reached = chances(constraint)
    sure = np.flatnonzero(reached >= share)
    if not len(sure):
        closest = int(np.argmax(reached))
        raise InputError(
            f"no member of the front is {100 * share:g}% sure to satisfy '{constraint}'; the "
            f"surest is {front['key'].iloc[closest]} with {100 * reached[closest]:.3g}%"
        )
    return str(front["key"].iloc[int(sure[np.argmin(losses_of(front, [first])[sure])])])
