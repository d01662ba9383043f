"""Units: components of atoms that can be removed, and where they lie."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.atoms import Layer, first_along, varying
from hwsearch.elastic.analysis.flow import Flow, Partial
from hwsearch.elastic.analysis.integers import Counts, Target, Unsolvable, solve

Ints = NDArray[np.int64]
_NO_SLAB = -1
_SHAPE = "a shape that depends on them does not follow"
_CONFLICT = "one number of the graph would have to shrink with different channels"


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the components of one layer lie: one entry per component and index.

    A component is a slab: it takes some indices of one axis, and all of the other axes.

    Attributes:
        axes: That axis; `_NO_SLAB` for a component that is no slab.
    """

    components: Ints
    axes: Ints
    positions: Ints


@dataclass(eq=False)
class Units:
    """Components of a flow's atoms.

    Attributes:
        labels: Atom -> component; 0 is pinned.
        operators: Node -> its type.
        broken: Component -> why it cannot be removed although nothing pins it.
        shrinking: Integers that shrink, by the component.
    """

    flow: Flow
    labels: Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    shrinking: dict[tuple[str, str, int], Counts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.flow.graph
        nodes = graph.proto.graph.node
        self.operators = {node.name: node.op_type for node in nodes}
        inputs = {node.name: node.input for node in nodes}
        self._rows = {
            product.node: product.macs // graph.weights[name].size
            for product in self.flow.products
            for name in inputs[product.node][:2]
            if name in graph.weights
        }
        self._held: dict[int, Ints] = {}
        self._places: dict[int, tuple[Layer, Places]] = {}
        self._counts: dict[tuple[tuple[int, ...], int, tuple[int, int] | None], Counts] = {}
        self._resolve()
        self._follow()

    def places(self, layer: Layer) -> Places:
        """Return where the components of a layer lie."""
        found = self._places.get(id(layer))
        if found is None:
            found = self._places[id(layer)] = (layer, _slabs(self.labels[layer]))
        return found[1]

    def count(
        self, layers: tuple[Layer, ...], axis: int, span: tuple[int, int] | None = None
    ) -> Counts:
        """Return how many positions of an axis, or of a range of it, each component takes.

        Pinned positions are not counted.
        """
        key = (tuple(id(layer) for layer in layers), axis, span)
        if key in self._counts:
            return self._counts[key]
        counts: dict[int, int] = {}
        for layer in layers:
            places = self.places(layer)
            chosen = (places.axes == axis) & (places.components != 0)
            if span is not None:
                chosen &= (places.positions >= span[0]) & (places.positions < span[1])
            ids, numbers = np.unique(places.components[chosen], return_counts=True)
            for component, number in zip(ids.tolist(), numbers.tolist(), strict=True):
                counts[component] = max(number, counts.get(component, 0))
        self._counts[key] = counts
        return counts

    def holds(self, layers: Iterable[Layer], components: Ints) -> bool:
        """Return whether one of the layers has one of the components."""
        key = id(layers)
        if key not in self._held:
            parts = [np.unique(self.labels[layer]) for layer in layers]
            self._held[key] = np.unique(np.concatenate([*parts, np.zeros(0, np.int64)]))
        return bool(np.isin(components, self._held[key]).any())

    def rows(self, nodes: Iterable[str]) -> int:
        """Return how often each sample reads the weights of some nodes at most: its tokens."""
        return max((self._rows.get(node, 1) for node in nodes), default=1)

    def _resolve(self) -> None:
        """Join atoms until each component is a slab of every layer."""
        flow = self.flow
        partials = list(flow.partials)
        while True:
            self.labels = flow.atoms.components()
            self._places.clear()
            if partials:
                clear = [each for each in partials if self._lies_on(each) is not None]
                for partial in clear or partials:
                    self._decide(partial)
                partials = [each for each in partials if each not in clear] if clear else []
                continue
            joined = [self._join_slabs(*grid) for grid in flow.grids.values()]
            if not any(joined):
                return

    def _lies_on(self, partial: Partial) -> Literal["shared", "other"] | None:
        """Return on which axes the large layer's units lie; None if that is open."""
        labels = self.labels[partial.large]
        shared = varying(partial.small)
        outside = [axis for axis in varying(partial.large) if axis not in shared]
        if _is_constant(labels, outside):
            return "shared"
        return "other" if _is_constant(labels, shared) else None

    def _decide(self, partial: Partial) -> None:
        """Let a small layer join a large one, or stay where the large one's units allow it."""
        atoms, node = self.flow.atoms, partial.node
        if self._lies_on(partial) == "other":
            atoms.pin(partial.small, node, "they are combined with units on other axes")
            return
        shared = varying(partial.small)
        outside = [axis for axis in varying(partial.large) if axis not in shared]
        atoms.join_along(partial.large, outside, node)
        atoms.join(first_along(partial.large, outside), partial.small, node)

    def _join_slabs(self, layer: Layer, node: str) -> bool:
        """Join atoms of components that are no slabs; return whether there were any."""
        places = self.places(layer)
        failed = places.components[places.axes == _NO_SLAB]
        if not failed.size:
            return False
        # They are to lie on the longest axis: so the most units remain.
        axis = max(varying(layer), key=lambda each: (layer.shape[each], each))
        others = [each for each in varying(layer) if each != axis]
        hit = np.isin(self.labels[layer], failed).any(tuple(others))
        self.flow.atoms.join_along(layer.compress(hit.reshape(-1), axis), others, node)
        return True

    def _follow(self) -> None:
        """Find the integers that shrink, and the components that a shape does not follow."""
        for demand in self.flow.demands:
            counts = self.count(demand.layers, demand.axis, demand.span)
            need = {key: demand.sign * number for key, number in counts.items()}

            def store(target: Target, amounts: Counts, node: str = demand.node) -> None:
                self._store(target, amounts, node)

            try:
                solve(demand.integer, need, self.count, store)
            except Unsolvable as error:
                for component in error.components:
                    self.broken.setdefault(component, (demand.node, _SHAPE))

    def _store(self, target: Target, need: Counts, node: str) -> None:
        known = self.shrinking.setdefault(target.key, need)
        if known != need:
            for component in frozenset(known) | frozenset(need):
                if known.get(component, 0) != need.get(component, 0):
                    self.broken.setdefault(component, (node, _CONFLICT))


def _is_constant(labels: Ints, axes: list[int] | tuple[int, ...]) -> bool:
    return all(bool((labels == labels.take([0], axis)).all()) for axis in axes)


def _slabs(labels: Ints) -> Places:
    """Return where each component lies, in an array of components with an axis per layer's."""
    axes = varying(labels)
    reduced = labels
    for axis in axes:
        first = reduced.take([0], axis)
        if (reduced == first).all():
            reduced = first
    left = varying(reduced)
    if not left:
        # One component takes everything: it lies on the longest axis.
        axis = max(axes, key=lambda each: labels.shape[each])
        size = labels.shape[axis]
        return Places(np.full(size, reduced.reshape(-1)[0]), np.full(size, axis), np.arange(size))
    if len(left) == 1:
        flat = reduced.reshape(-1)
        return Places(flat, np.full(flat.size, left[0]), np.arange(flat.size))
    return _grid_slabs(reduced, left)


def _grid_slabs(labels: Ints, axes: tuple[int, ...]) -> Places:
    ids, inverse, totals = np.unique(labels, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(labels.shape)
    done = ids == 0
    found: list[tuple[Ints, Ints, Ints]] = []
    for axis in axes:
        size = labels.shape[axis]
        index = np.arange(size).reshape([size if a == axis else 1 for a in range(labels.ndim)])
        pairs = np.unique((inverse * size + index).reshape(-1))
        owner, positions = pairs // size, pairs % size
        distinct = np.bincount(owner, minlength=ids.size)
        slab = (totals == distinct * (labels.size // size)) & ~done
        chosen = slab[owner]
        found.append((ids[owner[chosen]], np.full(chosen.sum(), axis), positions[chosen]))
        done |= slab
    failed = ids[~done]
    found.append((failed, np.full(failed.size, _NO_SLAB), np.zeros(failed.size, np.int64)))
    components, of_axes, positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Places(components, of_axes, positions)
