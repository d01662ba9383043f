"""Integers that a graph computes shapes with: their values, and what they depend on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.atoms import Layer

# Component -> number of positions that are removed with it.
Counts = Mapping[int, int]
Integers = NDArray[Any]  # of `Integer`
MOST = 256  # elements of an array that is followed element by element


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where an integer is stored: an initialiser, or an attribute of a node."""

    name: str
    attribute: str = ""
    position: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """The place as a key."""
        return self.name, self.attribute, self.position


@dataclass(frozen=True, slots=True, eq=False)
class Integer:
    """An integer for a batch of one sample.

    Attributes:
        value: The number.
        target: Where it is stored, if it is a constant.
        layers: For the size of an axis: layers of the value that has the axis.
        axis: The axis.
        operation: How it is computed from ``operands``.
    """

    value: int
    target: Target | None = None
    layers: tuple[Layer, ...] = ()
    axis: int = 0
    operation: str = ""
    operands: tuple["Integer", ...] = ()


def constants(name: str, array: NDArray[Any]) -> Integers:
    """Return the integers of an initialiser."""
    flat = array.reshape(-1)
    found = np.empty(flat.size, object)
    for position, value in enumerate(flat):
        found[position] = Integer(int(value), Target(name, "", position))
    return found.reshape(array.shape)


def sizes(shape: tuple[int, ...], layers: tuple[Layer, ...]) -> Integers:
    """Return the shape of a value."""
    found = np.empty(len(shape), object)
    for axis, size in enumerate(shape):
        on_axis = tuple(layer for layer in layers if layer.shape[axis] > 1)
        found[axis] = Integer(size, layers=on_axis, axis=axis)
    return found


def values(integers: Integers) -> list[int]:
    """Return the numbers of an array, flattened."""
    return [each.value for each in integers.reshape(-1)]


def computed(operation: str, value: int, *operands: Integer) -> Integer:
    """Return the result of an operation."""
    return Integer(int(value), operation=operation, operands=operands)


def binary(operation: str, compute: Callable[[int, int], int]) -> Callable[..., Any]:
    """Return a function on two arrays of integers that computes element by element."""

    def apply(a: Integer, b: Integer) -> Integer:
        return computed(operation, compute(a.value, b.value), a, b)

    return np.frompyfunc(apply, 2, 1)


def quotient(a: int, b: int) -> int:
    """Divide as ONNX does: towards zero."""
    return 0 if b == 0 else int(a / b) if abs(a) < 2**50 else a // b


BINARY = {
    "Add": binary("Add", lambda a, b: a + b),
    "Sub": binary("Sub", lambda a, b: a - b),
    "Mul": binary("Mul", lambda a, b: a * b),
    "Div": binary("Div", quotient),
    "Mod": binary("", lambda a, b: 0 if b == 0 else a % b),
    "Max": binary("", max),
    "Min": binary("", min),
    "Equal": binary("Equal", lambda a, b: int(a == b)),
    "Greater": binary("", lambda a, b: int(a > b)),
    "Less": binary("", lambda a, b: int(a < b)),
    "GreaterOrEqual": binary("", lambda a, b: int(a >= b)),
    "LessOrEqual": binary("", lambda a, b: int(a <= b)),
    "And": binary("", lambda a, b: int(bool(a) and bool(b))),
    "Or": binary("", lambda a, b: int(bool(a) or bool(b))),
}


class Unsolvable(Exception):  # noqa: N818 - caught where it is raised for, never shown
    """An integer does not follow from what is removed; ``components`` are those it depends on."""

    def __init__(self, components: frozenset[int]) -> None:
        super().__init__()
        self.components = components


Extents = Callable[[tuple[Layer, ...], int], Counts]


def response(integer: Integer, extents: Extents) -> Counts:
    """Return by how much an integer shrinks by itself when components are removed.

    Raises:
        Unsolvable: It is no linear function of what is removed.
    """
    if not integer.operands:
        return extents(integer.layers, integer.axis) if integer.layers else {}
    parts = [response(each, extents) for each in integer.operands]
    if not any(parts):
        return {}
    affected = frozenset(key for part in parts for key in part)
    if integer.operation in ("Add", "Sub"):
        sign = 1 if integer.operation == "Add" else -1
        first, second = parts
        both = {key: first.get(key, 0) + sign * second.get(key, 0) for key in affected}
        return {key: amount for key, amount in both.items() if amount}
    if integer.operation == "Mul" and not all(parts):
        first, second = parts
        counts, factor = (first, integer.operands[1]) if first else (second, integer.operands[0])
        return {key: amount * factor.value for key, amount in counts.items() if factor.value}
    if integer.operation == "Div" and not parts[1]:
        divided, divisor = (each.value for each in integer.operands)
        if divisor and divided % divisor == 0 and all(n % divisor == 0 for n in parts[0].values()):
            return {key: amount // divisor for key, amount in parts[0].items()}
    if integer.operation == "Equal" and _never_equal(integer):
        return {}
    raise Unsolvable(affected)


def _never_equal(integer: Integer) -> bool:
    """Return whether a size is compared with a negative constant."""
    return any(each.target is not None and each.value < 0 for each in integer.operands)


def solve(
    integer: Integer, need: Counts, extents: Extents, store: Callable[[Target, Counts], None]
) -> None:
    """Make an integer shrink by what is needed, by changes of the constants it is computed from.

    ``store`` is called with each constant that it depends on and what that must shrink by.

    Raises:
        Unsolvable: There is no such change.
    """
    if integer.target is not None:
        store(integer.target, need)
        return
    have = response(integer, extents)
    if not integer.operands or have == need:
        if have != need:
            raise Unsolvable(frozenset(have) | frozenset(need))
        _fix(integer, extents, store)
        return
    failed = Unsolvable(frozenset(have) | frozenset(need))
    first, second = integer.operands
    if integer.operation == "Add":
        _solve_sum(first, second, need, extents, store)
    elif integer.operation == "Mul":
        for part, other in ((first, second), (second, first)):
            divisible = other.value and all(n % other.value == 0 for n in need.values())
            if divisible and _has_constant(part) and not response(other, extents):
                solve(part, {key: n // other.value for key, n in need.items()}, extents, store)
                _fix(other, extents, store)
                return
        raise failed
    elif integer.operation == "Div" and first.value == second.value * integer.value:
        if response(second, extents):
            raise failed
        solve(first, {key: n * second.value for key, n in need.items()}, extents, store)
        _fix(second, extents, store)
    else:
        raise failed


def _solve_sum(
    first: Integer,
    second: Integer,
    need: Counts,
    extents: Extents,
    store: Callable[[Target, Counts], None],
) -> None:
    part, other = (first, second) if _has_constant(first) else (second, first)
    by_itself = response(other, extents)
    keys = frozenset(need) | frozenset(by_itself)
    left = {key: need.get(key, 0) - by_itself.get(key, 0) for key in keys}
    solve(part, {key: amount for key, amount in left.items() if amount}, extents, store)
    _fix(other, extents, store)


def _fix(integer: Integer, extents: Extents, store: Callable[[Target, Counts], None]) -> None:
    """State that the constants behind an integer do not change."""
    if integer.operation == "Equal" and _never_equal(integer):
        return
    if integer.target is not None:
        store(integer.target, {})
    for each in integer.operands:
        _fix(each, extents, store)


def _has_constant(integer: Integer) -> bool:
    return integer.target is not None or any(_has_constant(each) for each in integer.operands)
