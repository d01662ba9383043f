"""Order in which the units of a group are kept: by optimal brain surgeon, or by norms."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.consumers import Linear, Readers, readers
from hwsearch.elastic.graph import Group, Structure
from hwsearch.elastic.repair.covariance import Covariance
from hwsearch.elastic.repair.elimination import Elimination, elimination
from hwsearch.elastic.repair.statistics import Statistics

RIDGE = 1e-3  # of the inverse covariance, relative to the mean variance of a column
STEPS = 32  # in which all units are removed

Order = NDArray[np.int64]


def unit_orders(
    structure: Structure,
    statistics: Statistics | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Order]:
    """Return the units of each group, most important first.

    A group keeps the first units of this order; so a smaller width is a part of a larger one.
    Within `Group.parts`, every prefix that takes equal shares of the parts takes the most
    important units of each. A unit's importance is what the layers that read it lose of their
    outputs' variance, each relative to its own, if the units that remain take over what they can
    (see `hwsearch.elastic.repair.elimination`). Units that no layer with statistics reads are
    ordered by the norms of the weights that produce them.

    Args:
        structure: The model and its groups.
        statistics: None orders all groups by norms.
        progress: Called with the groups done and the groups in all.
    """
    found = readers(structure)
    orders = {}
    for number, group in enumerate(structure.groups):
        removed: list[int] | None = None
        layers = found.of_group(group.name)
        if statistics is not None and layers and group.size > 1:
            removed = _by_elimination(structure, statistics, found, group, layers)
        if removed is None:
            removed = list(np.argsort(_norms(structure, group), kind="stable"))
        orders[group.name] = _interleaved(group, np.array(removed[::-1], np.int64))
        if progress is not None:
            progress(number + 1, len(structure.groups))
    return orders


def _by_elimination(
    structure: Structure,
    statistics: Statistics,
    found: Readers,
    group: Group,
    layers: list[Linear],
) -> list[int] | None:
    """Return the units in the order of their removal, or None if no layer's input varies."""
    shared: dict[str, list[Linear]] = {}
    for layer in layers:
        if layer.key in statistics.inputs:
            shared.setdefault(f"{layer.key} {layer.bias is None}", []).append(layer)
    eliminations: list[Elimination] = []
    for same in shared.values():
        eliminations += _eliminations(structure, statistics, found, group, same)
    if not eliminations:
        return None
    remaining = np.arange(group.size)
    parts = group.parts if len(group.parts) else np.zeros(group.size, np.int64)
    step = {part: -(-int((parts == part).sum()) // STEPS) for part in np.unique(parts)}
    removed: list[int] = []
    while len(remaining):
        costs = sum((each.costs() for each in eliminations), np.zeros(len(remaining)))
        cheapest = np.argsort(costs, kind="stable")
        ranks = {
            part: cheapest[parts[remaining[cheapest]] == part][:n] for part, n in step.items()
        }
        gone = np.concatenate(list(ranks.values()))
        gone = gone[np.argsort(costs[gone], kind="stable")]
        removed += remaining[gone].tolist()
        if len(gone) < len(remaining):
            for each in eliminations:
                each.remove(np.sort(gone))
        remaining = np.delete(remaining, gone)
    return removed


def _eliminations(
    structure: Structure,
    statistics: Statistics,
    found: Readers,
    group: Group,
    layers: list[Linear],
) -> list[Elimination]:
    """Return one for each convolution group of layers that read the same input."""
    covariances = statistics.covariances(layers[0])
    places = found.units[layers[0].node][group.name]
    stacked = []
    for layer in layers:
        matrix = layer.matrix(structure.graph.weights[layer.weight])
        flat = matrix.reshape(*matrix.shape[:2], -1)
        total = _energy(covariances, flat)
        if total > 0:
            stacked.append(flat / np.sqrt(total))
    if not stacked:
        return []
    weights = np.concatenate(stacked, axis=1)
    kernel = weights.shape[2] // found.positions[layers[0].node]
    result = []
    for g, covariance in enumerate(covariances):
        own = places[..., 0] == g
        widths = own.sum(axis=1)
        if not widths.any() or (widths != widths[0]).any():
            continue
        positions = places[..., 1][own].reshape(group.size, -1)
        columns = positions[:, :, None] * kernel + np.arange(kernel)
        blocks = columns.reshape(group.size, -1)
        each = elimination(covariance, weights[g], blocks, RIDGE)
        if each is not None:
            result.append(each)
    return result


def _energy(covariances: list[Covariance], weights: NDArray[np.float64]) -> float:
    return sum(c.energy(w) for c, w in zip(covariances, weights, strict=True))


def _norms(structure: Structure, group: Group) -> NDArray[np.float64]:
    """Return the sum of squares of what produces a unit, each weight relative to its own."""
    total = np.zeros(group.size)
    slots = [s for s in group.slots if s.role == "out"] or list(group.slots)
    for slot in slots:
        weight = np.moveaxis(structure.graph.weights[slot.weight], slot.axis, 0)
        if weight.dtype.kind != "f":
            continue
        squares = np.square(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1)
        own = squares[np.asarray(slot.positions)].reshape(group.size, -1).sum(axis=1)
        if own.sum() > 0:
            total += own / own.sum()
    return total


def _interleaved(group: Group, order: Order) -> Order:
    """Return an order whose prefixes take equal shares of the parts, as far as they can."""
    if not len(group.parts):
        return order
    parts = group.parts[order]
    share = np.empty(len(order))
    for part in np.unique(parts):
        own = parts == part
        share[own] = (np.arange(own.sum()) + 1) / own.sum()
    return order[np.lexsort((np.arange(len(order)), share))]
