"""Constraints on objectives: parsing, checking, and violations."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.errors import InputError, unknown
from hwsearch.objectives import NAME, BoolArray, FloatArray

OPERATORS = ("<=", ">=", "<", ">")
_CONSTRAINT = re.compile(rf"\s*({NAME})\s*(<=|>=|<|>)\s*([^\s<>=]+)\s*")


@dataclass(frozen=True, slots=True)
class Constraint:
    """A finite bound on a value, such as ``latency <= 12``; `parse` reads its ``str()`` back."""

    objective: str
    op: Literal["<=", ">=", "<", ">"]
    bound: float

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.objective):
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
        """Parse ``NAME OPERATOR NUMBER``, such as ``macs<=400e6``; return a constraint unchanged.

        InputError is raised for another form, and for a number that is not finite.
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
        """Return whether it is an upper bound (``<=``, ``<``)."""
        return self.op.startswith("<")

    def violation(self, values: ArrayLike) -> FloatArray:
        """Return by how much each value misses the bound, in the values' unit and shape.

        0 exactly where the constraint is satisfied, positive elsewhere, infinite for NaN.
        """
        array = np.asarray(values, dtype=np.float64)
        toward = -math.inf if self.is_upper else math.inf
        limit = self.bound if self.op.endswith("=") else math.nextafter(self.bound, toward)
        excess = array - limit if self.is_upper else limit - array
        return np.where(np.isnan(array), np.inf, np.maximum(excess, 0.0))

    def __str__(self) -> str:
        return f"{self.objective} {self.op} {repr(self.bound).removesuffix('.0')}"


def check_constraints(
    constraints: Iterable[str | Constraint], names: Iterable[str]
) -> tuple[Constraint, ...]:
    """Parse constraints and check that their names are known and no two exclude each other."""
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


def total_violation(
    values: Mapping[str, ArrayLike], constraints: Sequence[Constraint]
) -> FloatArray:
    """Return by how much each row misses all constraints together: ``(n,)``, for ranking rows.

    It is the sum of the violations, each relative to the magnitude of its bound (to 1 where that
    is 0): 0 where all are satisfied, infinite where a value is NaN. ``values`` maps names to
    ``(n,)`` in the quantity's unit; InputError is raised where a name or a value is missing.
    """
    missed = _violations(values, constraints)
    scales = np.array([abs(constraint.bound) or 1.0 for constraint in constraints])
    return np.asarray((missed / scales[:, np.newaxis]).sum(axis=0))


def satisfied(values: Mapping[str, ArrayLike], constraints: Sequence[Constraint]) -> BoolArray:
    """Return which rows keep every constraint, ``(n,)``; a row with NaN does not."""
    kept: BoolArray = (_violations(values, constraints) == 0.0).all(axis=0)
    return kept


def closest_to_feasible(
    constraints: Sequence[Constraint], values: Mapping[str, ArrayLike], keys: Sequence[str]
) -> str:
    """Return the text of an `InfeasibleError` for rows that all violate a constraint.

    It says how many were tried, the closest row with its violations, the best value seen for each
    constraint, and what to do. ``values`` maps names to ``(n,)``, NaN for unknown.
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
    closest, reached, best = int(np.argmin(total)), [], []
    for constraint in constraints:
        array = np.asarray(values[constraint.objective], dtype=np.float64)
        side, word = ("high", "lowest") if constraint.is_upper else ("low", "highest")
        extreme = np.nanmin(array) if constraint.is_upper else np.nanmax(array)
        missed = constraint.violation(array)
        verdict = f"{missed[closest]:.3g} too {side}" if missed[closest] else "satisfied"
        reached.append(f"{constraint.objective} {array[closest]:.6g} ({verdict})")
        n_kept = np.count_nonzero(missed == 0)
        best.append(f"{constraint} alone: {n_kept} of {len(array)}, {word} seen {extreme:.6g}.")
    return (
        f"none of {len(total)} evaluated architectures satisfies {wanted}. "
        f"The closest ({keys[closest]}) has {', '.join(reached)}. {' '.join(best)} "
        "Loosen a bound or search with a larger budget."
    )


def _violations(values: Mapping[str, ArrayLike], constraints: Sequence[Constraint]) -> FloatArray:
    """Return violations of shape ``(n_constraints, n)``."""
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
