"""Objectives, constraints and the Pareto arithmetic on them.

Values are what people read (top-1 in percent, latency in ms). Losses are the same numbers with
every direction turned to minimisation; `to_losses` and `from_losses` are the only door between.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError, unknown

if TYPE_CHECKING:
    from hwsearch.space import Architectures

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MAX_OBJECTIVES = 4
OPERATORS = ("<=", ">=", "<", ">")

_NAME = r"[^\W\d][\w.@-]*"
_CONSTRAINT = re.compile(rf"\s*({_NAME})\s*(<=|>=|<|>)\s*([^\s<>=]+)\s*")


@dataclass(frozen=True, slots=True)
class Objective:
    """A named number with a direction.

    Args:
        name: A word, such as ``top1``: a letter, then letters, digits, ``_``, ``.``, ``@``, ``-``.
        direction: ``"max"`` or ``"min"``.
        exact: Computes the objective, ``Architectures`` of length n to an array ``(n,)``; an
            objective without it is measured or predicted.
        unit: How reports print it, such as ``ms``.
        prediction: Predicts, as ``exact`` computes, an objective that cannot be measured here;
            predicted values choose, and enter no front.
        approximation: Roughly computes a positive objective that is measured all the same, as
            ``exact`` does; a search predicts by learned multiples of it while that fits.

    Raises:
        InputError: The name is no such word, the direction neither of the two, or the objective
            both exact and predicted.
    """

    name: str
    direction: Literal["max", "min"]
    exact: "Callable[[Architectures], ArrayLike] | None" = None
    unit: str = field(default="", kw_only=True)
    prediction: "Callable[[Architectures], ArrayLike] | None" = field(default=None, kw_only=True)
    approximation: "Callable[[Architectures], ArrayLike] | None" = field(
        default=None, kw_only=True
    )

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, str(self.name)):
            raise InputError(
                f"objective name {self.name!r} is not one word; "
                "start with a letter and use letters, digits, '_', '.', '@' and '-'"
            )
        if self.direction not in ("max", "min"):
            raise unknown(f"direction of objective {self.name}", self.direction, ("max", "min"))
        if self.exact is not None and self.prediction is not None:
            raise InputError(f"objective {self.name!r} is exact, so that nothing may predict it")

    @property
    def source(self) -> Literal["exact", "measured", "predicted"]:
        """How its values are obtained."""
        if self.exact is not None:
            return "exact"
        return "measured" if self.prediction is None else "predicted"

    @property
    def computed(self) -> "Callable[[Architectures], ArrayLike] | None":
        """The function that gives its values, exact or predicted; None where it is measured."""
        return self.prediction if self.exact is None else self.exact


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured objective as far as it is known, such as an accuracy on a part of the images.

    It teaches a search, as much as its deviation allows, and enters no front.

    Args:
        value: In the objective's unit.
        deviation: Standard deviation of what is still unknown of the full value; positive.

    Raises:
        InputError: The deviation is not positive and finite.
    """

    value: float
    deviation: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.deviation) and self.deviation > 0):
            raise InputError(
                f"an estimate's deviation is {self.deviation!r}; give a positive number"
            )


def known_as(value: float, deviation: float) -> float | Estimate:
    """Return a value as a search is told it: an `Estimate` unless the deviation is 0."""
    return Estimate(value, deviation) if deviation else value


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound that an architecture's value must keep, such as ``latency <= 12``.

    ``str()`` gives text that `parse` reads back to an equal constraint.

    Raises:
        InputError: The name is not one word, the operator unknown, or the bound not finite.
    """

    objective: str
    op: Literal["<=", ">=", "<", ">"]
    bound: float

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.objective):
            raise InputError(f"a constraint cannot name {self.objective!r}: it is not one word")
        if self.op not in OPERATORS:
            raise unknown(f"operator in a constraint on {self.objective}", self.op, OPERATORS)
        if not math.isfinite(self.bound):
            raise InputError(
                f"the bound of {self.objective} {self.op} {self.bound!r} is not a finite number"
            )
        object.__setattr__(self, "bound", float(self.bound))

    @classmethod
    def parse(cls, text: "str | Constraint") -> "Constraint":
        """Read ``latency <= 12`` or ``macs<=400e6``; a constraint is returned as it is.

        Raises:
            InputError: The text is not ``NAME OPERATOR NUMBER``, or the number not finite.
        """
        if isinstance(text, Constraint):
            return text
        match = _CONSTRAINT.fullmatch(text)
        try:
            if match is not None:
                return cls(match[1], match[2], float(match[3]))  # type: ignore[arg-type]
        except ValueError as error:
            if isinstance(error, InputError):
                raise
        raise InputError(
            f"constraint {text!r} is not of the form NAME OPERATOR NUMBER with an operator out of "
            f"{', '.join(OPERATORS)}; write for example 'latency <= 12' or 'macs <= 400e6'"
        )

    @property
    def is_upper(self) -> bool:
        """Whether the bound is one from above (``<=``, ``<``)."""
        return self.op.startswith("<")

    def violation(self, values: ArrayLike) -> FloatArray:
        """By how much each value misses the bound, in the values' own unit.

        Args:
            values: Any shape. NaN (not known) counts as missed by infinity.

        Returns:
            The same shape; 0 exactly where the constraint is satisfied, positive elsewhere.
        """
        array = np.asarray(values, dtype=np.float64)
        toward = -math.inf if self.is_upper else math.inf
        limit = self.bound if self.op.endswith("=") else math.nextafter(self.bound, toward)
        excess = array - limit if self.is_upper else limit - array
        return np.where(np.isnan(array), np.inf, np.maximum(excess, 0.0))

    def __str__(self) -> str:
        return f"{self.objective} {self.op} {repr(self.bound).removesuffix('.0')}"


def check_objectives(objectives: Iterable[Objective]) -> tuple[Objective, ...]:
    """Validate a list of objectives, keeping its order.

    Raises:
        InputError: Not 1 to 4 of them, something that is no `Objective`, or a name twice.
    """
    checked = tuple(objectives)
    for objective in checked:
        if not isinstance(objective, Objective):
            raise InputError(f"{objective!r} is no objective; write Objective('top1', 'max')")
    names = [objective.name for objective in checked]
    if not 1 <= len(checked) <= MAX_OBJECTIVES:
        raise InputError(
            f"{len(checked)} objectives given ({', '.join(names) or 'none'}); "
            f"a search takes 1 to {MAX_OBJECTIVES}"
        )
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"objective {repeated!r} is given twice; name each one once")
    return checked


def check_constraints(
    constraints: Iterable[str | Constraint], names: Iterable[str]
) -> tuple[Constraint, ...]:
    """Parse constraints and check them against the names that have values.

    Raises:
        InputError: A text that cannot be read, a name that is not among ``names``, or two
            constraints that no number satisfies together.
    """
    if isinstance(constraints, str):
        constraints = [constraints]
    checked = tuple(Constraint.parse(constraint) for constraint in constraints)
    known = list(names)
    for constraint in checked:
        if constraint.objective not in known:
            raise unknown(f"name in constraint '{constraint}':", constraint.objective, known)
    for upper in (c for c in checked if c.is_upper):
        for lower in (c for c in checked if not c.is_upper and c.objective == upper.objective):
            if upper.violation(lower.bound) > 0 or lower.violation(upper.bound) > 0:
                raise InputError(f"no number satisfies both {lower} and {upper}; change one")
    return checked


def to_losses(values: ArrayLike, objectives: Sequence[Objective]) -> FloatArray:
    """Turn values into losses, every one of which is minimised.

    Args:
        values: ``(n, n_objectives)``, in the objectives' units and directions; NaN stays NaN.
        objectives: One for each column.

    Returns:
        ``(n, n_objectives)``, a new array.

    Raises:
        InputError: The number of columns differs from the number of objectives.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != len(objectives):
        raise InputError(
            f"an array of shape {array.shape} does not hold {len(objectives)} objectives "
            f"({', '.join(o.name for o in objectives)}) in its columns"
        )
    signs = np.array([-1.0 if o.direction == "max" else 1.0 for o in objectives])
    losses: FloatArray = array * signs + 0.0  # + 0.0 turns -0.0 into 0.0
    return losses


def from_losses(losses: ArrayLike, objectives: Sequence[Objective]) -> FloatArray:
    """Turn losses ``(n, n_objectives)`` back into values; the inverse of `to_losses`."""
    return to_losses(losses, objectives)


def is_non_dominated(losses: ArrayLike) -> BoolArray:
    """Mark the rows that no other row dominates.

    A row dominates another when it is nowhere larger and somewhere smaller.

    Args:
        losses: ``(n, n_objectives)``, minimised.

    Returns:
        ``(n,)``. Duplicates of a non-dominated row are all marked. A row with a NaN is not
        marked and dominates nothing.
    """
    array = _matrix(losses)
    marked = np.zeros(len(array), dtype=np.bool_)
    known = ~np.isnan(array).any(axis=1)
    if known.any():
        import moocore

        marked[known] = moocore.is_nondominated(array[known], keep_weakly=True)
    return marked


def hypervolume(losses: ArrayLike, reference_losses: ArrayLike) -> float:
    """Volume that the rows dominate, up to a reference point.

    Computed by moocore (Fonseca, Paquete and Lopez-Ibanez, 2006, and its successors).

    Args:
        losses: ``(n, n_objectives)``, minimised. Rows with a NaN, and rows that are not below
            the reference in every objective, add nothing.
        reference_losses: ``(n_objectives,)``, minimised, finite.

    Returns:
        The volume in the product of the objectives' units; 0.0 for no rows.

    Raises:
        InputError: The reference has another length than the rows, or is not finite.
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


def total_violation(
    values: Mapping[str, ArrayLike], constraints: Sequence[Constraint]
) -> FloatArray:
    """By how much each row misses all constraints together, for ranking rows.

    Args:
        values: Name to array ``(n,)``, in the names' own units; NaN is not known.
        constraints: What is to be kept.

    Returns:
        ``(n,)``: the sum of the violations, each as a share of its bound's size (of 1 where
        the bound is 0). 0 where all are satisfied, infinite where a value is not known.

    Raises:
        InputError: A constraint names something without values, or lengths differ.
    """
    missed = _violations(values, constraints)
    scales = [abs(constraint.bound) or 1.0 for constraint in constraints]
    shares = [row / scale for row, scale in zip(missed, scales, strict=True)]
    return np.sum(shares, axis=0, dtype=np.float64) if shares else np.zeros(missed.shape[1])


def satisfied(values: Mapping[str, ArrayLike], constraints: Sequence[Constraint]) -> BoolArray:
    """Mark the rows that keep every constraint; a value that is NaN keeps none.

    Args and errors are those of `total_violation`; the result has shape ``(n,)``.
    """
    kept: BoolArray = (_violations(values, constraints) == 0.0).all(axis=0)
    return kept


def closest_to_feasible(
    constraints: Sequence[Constraint],
    values: Mapping[str, ArrayLike],
    keys: Sequence[str] | None = None,
) -> str:
    """Say what came closest when nothing evaluated keeps all constraints.

    Args:
        constraints: At least one.
        values: Name to array ``(n,)``; NaN is not known.
        keys: The ``n`` architectures' keys, so that the closest one is named.

    Returns:
        The text of an `InfeasibleError`: how many were tried, the closest one with each of its
        misses, the best value seen for every constraint, and what to do.

    Raises:
        InputError: A row does satisfy all constraints, or as for `total_violation`.
    """
    total = total_violation(values, constraints)
    wanted = " and ".join(str(constraint) for constraint in constraints)
    if not np.isfinite(total).any():
        names = ", ".join(dict.fromkeys(constraint.objective for constraint in constraints))
        return (
            f"nothing satisfies {wanted}: none of {len(total)} evaluated architectures has a "
            f"value for {names}. See the reasons of the failed trials."
        )
    if satisfied(values, constraints).any():
        raise InputError(f"an evaluated architecture does satisfy {wanted}")
    closest = int(np.argmin(total))
    name = "" if keys is None else f" ({keys[closest]})"
    parts = [_compared(c, float(np.asarray(values[c.objective])[closest])) for c in constraints]
    best = [_best_seen(constraint, values[constraint.objective]) for constraint in constraints]
    return (
        f"none of {len(total)} evaluated architectures satisfies {wanted}. "
        f"The closest{name} has {', '.join(parts)}. {' '.join(best)} "
        "Loosen a bound or search with a larger budget."
    )


def _matrix(losses: ArrayLike) -> FloatArray:
    array = np.asarray(losses, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"losses have shape {array.shape}; (n, n_objectives) is needed")
    return array


def _violations(values: Mapping[str, ArrayLike], constraints: Sequence[Constraint]) -> FloatArray:
    """Violations of shape ``(n_constraints, n)``."""
    arrays = {name: np.asarray(given, dtype=np.float64) for name, given in values.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(f"values need one shape (n,) for all names; found {found or 'no names'}")
    for constraint in constraints:
        if constraint.objective not in arrays:
            raise unknown(f"name in constraint '{constraint}':", constraint.objective, arrays)
    missed = [constraint.violation(arrays[constraint.objective]) for constraint in constraints]
    return np.array(missed).reshape(len(constraints), *next(iter(shapes)))


def _compared(constraint: Constraint, value: float) -> str:
    missed = float(constraint.violation(value))
    side = "high" if constraint.is_upper else "low"
    verdict = f"{missed:.3g} too {side}" if missed else "satisfied"
    return f"{constraint.objective} {value:.6g} ({verdict})"


def _best_seen(constraint: Constraint, values: ArrayLike) -> str:
    array = np.asarray(values, dtype=np.float64)
    best = np.nanmin(array) if constraint.is_upper else np.nanmax(array)
    word = "lowest" if constraint.is_upper else "highest"
    n_kept = int((constraint.violation(array) == 0).sum())
    return f"{constraint} alone: {n_kept} of {len(array)}, {word} seen {best:.6g}."
