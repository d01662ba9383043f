"""Objectives, and Pareto dominance and hypervolume.

Values are in users' units and directions (top-1 in percent, latency in ms). Losses are the same
numbers, all minimised; only `to_losses` and `from_losses` convert.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError, unknown

if TYPE_CHECKING:
    from hwsearch.space import Architectures

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MAX_OBJECTIVES = 4

NAME = r"[^\W\d][\w.@-]*"


@dataclass(frozen=True, slots=True)
class Objective:
    """A named number with a direction; InputError is raised for invalid arguments.

    Args:
        name: A word, such as ``top1``: a letter, then letters, digits, ``_``, ``.``, ``@``, ``-``.
        direction: ``"max"`` or ``"min"``.
        exact: Computes the objective, ``Architectures`` of length n to an array ``(n,)``; an
            objective without it is measured or predicted, and none is exact and predicted.
        unit: Unit in reports, such as ``ms``.
        prediction: Like ``exact``, for an objective that cannot be measured here; predicted
            values guide the search and enter no front.
        approximation: Like ``exact``, rough values of a positive objective that is measured; a
            search predicts it by learned multiples of them while that fits.
        covariate: Like ``exact``, positive numbers that an objective which is measured may be a
            function of, such as a loss that is expected; surrogates take its logarithm as a
            feature, and learn what it says.
        limit: Value of an objective that is measured which none reaches, such as a little below 0
            for a divergence: a search weighs differences of the logarithm of the distance from
            it, so that halving a distance is worth the same wherever it is.
    """

    name: str
    direction: Literal["max", "min"]
    exact: "Callable[[Architectures], ArrayLike] | None" = None
    _: KW_ONLY
    unit: str = ""
    prediction: "Callable[[Architectures], ArrayLike] | None" = None
    approximation: "Callable[[Architectures], ArrayLike] | None" = None
    covariate: "Callable[[Architectures], ArrayLike] | None" = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, str(self.name)):
            raise InputError(
                f"objective name {self.name!r} is not one word; "
                "start with a letter and use letters, digits, '_', '.', '@' and '-'"
            )
        if self.direction not in ("max", "min"):
            raise unknown(f"direction of objective {self.name}", self.direction, ("max", "min"))
        if self.exact is not None and self.prediction is not None:
            raise InputError(f"objective {self.name!r} is exact, so that nothing may predict it")
        if self.limit is not None and not math.isfinite(self.limit):
            raise InputError(f"the limit of {self.name!r} is {self.limit!r}; give a finite number")

    @property
    def source(self) -> Literal["exact", "measured", "predicted"]:
        """Return how its values are obtained."""
        if self.exact is not None:
            return "exact"
        return "measured" if self.prediction is None else "predicted"

    @property
    def computed(self) -> "Callable[[Architectures], ArrayLike] | None":
        """Return the function of its exact or predicted values; None if it is measured."""
        return self.prediction if self.exact is None else self.exact


@dataclass(frozen=True, slots=True)
class Estimate:
    """An uncertain value of a measured objective, such as an accuracy on a part of the images.

    A search learns from it, weighted by its deviation; it enters no front. ``deviation`` is the
    standard deviation of the full value around it, positive and finite, else InputError is raised.
    """

    value: float
    deviation: float

    def __post_init__(self) -> None:
        if not 0 < self.deviation < math.inf:
            raise InputError(f"an estimate's deviation is {self.deviation!r}; give one above 0")


def check_objectives(objectives: Iterable[Objective]) -> tuple[Objective, ...]:
    """Return the objectives as a tuple; raise InputError unless 1 to 4 with distinct names."""
    checked = tuple(objectives)
    for objective in checked:
        if not isinstance(objective, Objective):
            raise InputError(f"{objective!r} is no objective; write Objective('top1', 'max')")
    names = [objective.name for objective in checked]
    if not 1 <= len(names) <= MAX_OBJECTIVES:
        raise InputError(
            f"{len(names)} objectives given ({', '.join(names) or 'none'}); "
            f"a search takes 1 to {MAX_OBJECTIVES}"
        )
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"objective {name!r} is given twice; name each one once")
    return checked


def to_losses(values: ArrayLike, objectives: Sequence[Objective]) -> FloatArray:
    """Return values ``(n, n_objectives)`` as losses, all minimised, in a new array; NaN stays."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != len(objectives):
        raise InputError(
            f"an array of shape {array.shape} does not hold {len(objectives)} objectives "
            f"({', '.join(o.name for o in objectives)}) in its columns"
        )
    losses: FloatArray = array * loss_signs(objectives) + 0.0  # + 0.0 turns -0.0 into 0.0
    return losses


def loss_signs(objectives: Sequence[Objective]) -> FloatArray:
    """Return -1 for maximised and 1 for minimised objectives, ``(n_objectives,)``."""
    return np.array([-1.0 if o.direction == "max" else 1.0 for o in objectives])


def from_losses(losses: ArrayLike, objectives: Sequence[Objective]) -> FloatArray:
    """Return values ``(n, n_objectives)`` from losses; the inverse of `to_losses`."""
    return to_losses(losses, objectives)


def is_non_dominated(losses: ArrayLike) -> BoolArray:
    """Return which rows of ``(n, n_objectives)`` losses no other row dominates, ``(n,)``.

    A row dominates another when it is nowhere larger and somewhere smaller. Duplicates of a
    non-dominated row are all marked. A row with a NaN is not marked and dominates nothing.
    """
    array = _matrix(losses)
    marked = np.zeros(len(array), dtype=np.bool_)
    known = ~np.isnan(array).any(axis=1)
    if known.any():
        import moocore

        marked[known] = moocore.is_nondominated(array[known], keep_weakly=True)
    return marked


def hypervolume(losses: ArrayLike, reference_losses: ArrayLike) -> float:
    """Return the volume that the rows dominate, up to a reference point; 0.0 for no rows.

    Computed by moocore (Fonseca, Paquete and Lopez-Ibanez, 2006, and its successors).

    Args:
        losses: ``(n, n_objectives)``, minimised. Rows with a NaN, and rows that are not below
            the reference in every objective, add nothing.
        reference_losses: ``(n_objectives,)``, minimised, finite, else InputError is raised.
    """
    array = _matrix(losses)
    reference = np.asarray(reference_losses, dtype=np.float64)
    if reference.shape != array.shape[1:] or not np.isfinite(reference).all():
        raise InputError(
            f"the reference point {reference.tolist()} must hold {array.shape[1]} finite "
            "numbers, one for each objective"
        )
    inside = array[(array < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    import moocore

    return float(moocore.hypervolume(inside, ref=reference))


def _matrix(losses: ArrayLike) -> FloatArray:
    array = np.asarray(losses, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"losses have shape {array.shape}; (n, n_objectives) is needed")
    return array
