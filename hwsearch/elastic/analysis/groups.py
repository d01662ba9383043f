"""Groups: units with the same places in the same weights."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.atoms import varying
from hwsearch.elastic.analysis.units import Units
from hwsearch.elastic.graph import Group, Patch, Role, Slot

Ints = NDArray[np.int64]
_LINEAR = frozenset(("Einsum", "Gemm", "MatMul"))
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, eq=False)
class _Lie:
    """Components along one axis of a weight: one entry per component and position."""

    slot: int
    weight: str
    axis: int
    node: str
    role: Role
    components: Ints
    positions: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The components of one group, in the order of its units."""

    components: Ints
    group: Group


def find_groups(units: Units) -> list[Members]:
    """Return all groups of at least two units, without names, in the order of the graph."""
    lies = list(_lies(units))
    count = len(units.labels)
    signature = np.zeros(count, np.uint64)
    produced, read = np.zeros(count, bool), np.zeros(count, bool)
    for number, lie in enumerate(lies):
        ids, widths = np.unique(lie.components, return_counts=True)
        signature[ids] += _hashed(number, widths)
        if lie.role == "out":
            produced[ids] = True
        elif lie.role == "in":
            read[ids] = True
    number = len(lies)
    for product in units.flow.products:
        for layers in product.layers:
            counts = _counted(units, layers)
            if counts:
                ids = np.fromiter(counts, np.int64)
                signature[ids] += _hashed(number, np.fromiter(counts.values(), np.int64))
            number += 1
    usable = produced & read
    usable[[0, *units.broken]] = False
    return _grouped(units, lies, usable, signature)


def _counted(units: Units, layers: tuple[tuple[NDArray[np.int64], int], ...]) -> dict[int, int]:
    """Return how many positions of an axis of a product each component takes."""
    counts: dict[int, int] = {}
    for layer, axis in layers:
        for component, amount in units.count((layer,), axis).items():
            counts[component] = max(amount, counts.get(component, 0))
    return counts


def _hashed(number: int, widths: Ints) -> NDArray[np.uint64]:
    """Return 64-bit hashes of (number, width), whose sums tell sets of them apart (splitmix64)."""
    mixed = (np.uint64(number) << np.uint64(24)) + widths.astype(np.uint64) + np.uint64(1)
    mixed = mixed * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _lies(units: Units) -> "list[_Lie]":
    found = []
    for number, slot in enumerate(units.flow.slots):
        places = units.places(slot.layer)
        for axis in varying(slot.layer):
            target = slot.axes[axis]
            chosen = (places.axes == axis) & (places.components != 0)
            if target is not None and chosen.any():
                found.append(
                    _Lie(
                        number,
                        slot.weight,
                        target,
                        slot.node,
                        slot.roles[axis],
                        places.components[chosen],
                        places.positions[chosen],
                    )
                )
    return found


def _grouped(
    units: Units, lies: list[_Lie], usable: NDArray[np.bool_], signature: NDArray[np.uint64]
) -> list[Members]:
    ids = np.flatnonzero(usable)
    _, number_of = np.unique(signature[ids], return_inverse=True)
    group_of = np.full(len(usable), -1)
    group_of[ids] = number_of
    touched: dict[int, list[tuple[_Lie, Ints, Ints]]] = defaultdict(list)
    for lie in lies:
        owners = group_of[lie.components]
        for number in np.unique(owners[owners >= 0]).tolist():
            chosen = owners == number
            touched[number].append((lie, lie.components[chosen], lie.positions[chosen]))
    found = []
    patches = _patches(units, group_of)
    order = sorted(touched, key=lambda each: _first(touched[each]))
    for number in order:
        pieces = touched[number]
        _, components, positions = next(p for p in pieces if p[0].role == "out")
        # Units are ordered as the channels that are produced first are.
        by_position = components[np.argsort(positions, kind="stable")]
        _, first = np.unique(by_position, return_index=True)
        members = by_position[np.sort(first)]
        if members.size < 2:
            continue
        index = np.full(len(usable), -1)
        index[members] = np.arange(members.size)
        slots = tuple(
            Slot(
                weight=lie.weight,
                axis=lie.axis,
                positions=at[np.lexsort((at, index[owner]))].reshape(members.size, -1),
                node=lie.node,
                role=lie.role,
            )
            for lie, owner, at in pieces
        )
        own = tuple(
            Patch(target=t, attribute=a, position=p, amounts=_amounts(counts, index, members.size))
            for (t, a, p), counts in patches.get(number, ())
        )
        group = Group(
            name="",
            kind=_kind(units, members, slots),
            size=members.size,
            slots=slots,
            patches=own,
            parts=np.zeros(members.size, np.int64),
        )
        found.append(Members(members, group))
    return found


def _first(pieces: "list[tuple[_Lie, Ints, Ints]]") -> tuple[int, int]:
    lie, _, positions = next(piece for piece in pieces if piece[0].role == "out")
    return lie.slot, int(positions.min())


def _patches(
    units: Units, group_of: Ints
) -> dict[int, list[tuple[tuple[str, str, int], dict[int, int]]]]:
    """Return for each group the integers that shrink with it, and by how much."""
    found: dict[int, list[tuple[tuple[str, str, int], dict[int, int]]]] = defaultdict(list)
    for key, counts in units.shrinking.items():
        by_group: dict[int, dict[int, int]] = defaultdict(dict)
        for component, amount in counts.items():
            if group_of[component] >= 0 and amount:
                by_group[int(group_of[component])][component] = amount
        for number, own in by_group.items():
            found[number].append((key, own))
    return found


def _amounts(counts: dict[int, int], index: Ints, size: int) -> Ints:
    amounts = np.zeros(size, np.int64)
    amounts[index[np.fromiter(counts, np.int64)]] = np.fromiter(counts.values(), np.int64)
    return amounts


def _kind(units: Units, members: Ints, slots: tuple[Slot, ...]) -> str:
    if units.holds(units.flow.heads, members):
        return "heads"
    makers = {slot.node for slot in slots if slot.role == "out"}
    if len(makers) > 1 and units.holds(units.flow.sums, members):
        return "residual"
    layers = {slot.node for slot in slots if slot.role in ("in", "out")}
    if all(units.operators[node] in _LINEAR for node in layers) and units.rows(makers) > 1:
        return "ffn"
    return "inner"
