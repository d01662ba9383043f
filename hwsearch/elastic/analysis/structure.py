"""Analysis of a graph: what can be removed from it, and the MACs that shrink with it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hwsearch.elastic.analysis.branches import find_branches
from hwsearch.elastic.analysis.flow import Flow
from hwsearch.elastic.analysis.groups import Members, find_groups
from hwsearch.elastic.analysis.names import Scopes, name_branches, name_groups, name_layers
from hwsearch.elastic.analysis.propagation import propagate
from hwsearch.elastic.analysis.units import Units
from hwsearch.elastic.graph import Branch, Graph, Group, RepeatedLayer, Rest, Structure, Work


def analyse(graph: Graph) -> Structure:
    """Find the groups and branches of a graph.

    Every channel index of every weight is an atom. Atoms follow the values through the graph, and
    operators join those that must be equal. What is joined in the end is a unit; what is not
    understood is kept, and named in ``rest``. Removing units equals zeros in the weights that read
    them, exactly.
    """
    flow = propagate(graph)
    units = Units(flow)
    members = find_groups(units)
    scopes = Scopes(graph)
    groups = name_groups([each.group for each in members], scopes)
    work = _work(units, members, groups)
    unnamed, repeated = find_branches(graph, {each.node: each.macs for each in work})
    kinds = [_kind(branch, groups, units.operators) for branch in unnamed]
    names = [group.name for group in groups]
    branches = name_branches(unnamed, kinds, scopes, names)
    layers = name_layers(repeated, scopes, [*names, *(each.name for each in branches)])
    return Structure(
        graph=graph,
        groups=tuple(groups),
        branches=tuple(branches),
        work=tuple(work),
        rest=_rest(units, work, [*branches, *layers]),
        layers=tuple(layers),
    )


def _work(units: Units, members: Sequence[Members], groups: Sequence[Group]) -> list[Work]:
    """Return the MACs of each node, with the share of each axis that a unit takes."""
    name_of = {
        int(component): group.name
        for each, group in zip(members, groups, strict=True)
        for component in each.components
    }
    found = []
    for product in units.flow.products:
        factors = []
        for size, layers in zip(product.sizes, product.layers, strict=True):
            per_unit: dict[str, int] = {}
            for layer, axis in layers:
                for component, amount in units.count((layer,), axis).items():
                    if component in name_of:
                        name = name_of[component]
                        per_unit[name] = max(amount, per_unit.get(name, 0))
            if per_unit:
                factors.append((size, per_unit))
        found.append(Work(node=product.node, macs=product.macs, factors=tuple(factors)))
    return found


def _kind(branch: Branch, groups: Sequence[Group], operators: Mapping[str, str]) -> str:
    """Return what a branch is, by the groups whose weights it holds."""
    inside = set(branch.nodes)
    kinds = Counter(
        group.kind
        for group in groups
        if all(slot.node in inside for slot in group.slots if slot.role == "out")
    )
    if kinds["heads"] and not kinds["ffn"]:
        return "attention"
    convolved = any(operators[node] == "Conv" for node in inside)
    return "ffn" if kinds["ffn"] == 1 and not kinds["heads"] and not convolved else "block"


def _rest(
    units: Units, work: Sequence[Work], parts: Sequence[Branch | RepeatedLayer]
) -> tuple[Rest, ...]:
    """Return the MACs that nothing reaches, by what stopped the analysis."""
    droppable = {node for part in parts for node in part.nodes}
    left = [each for each in work if not each.factors and each.node not in droppable]
    if not left:
        return ()
    reasons = _Reasons(units)
    macs: dict[tuple[str, str], int] = defaultdict(int)
    for each in left:
        if each.macs:
            macs[reasons.of(each.node)] += each.macs
    return tuple(
        Rest(what=what, reason=reason, macs=number)
        for (what, reason), number in sorted(macs.items(), key=lambda item: -item[1])
    )


class _Reasons:
    """Why the channels of nodes cannot be removed."""

    def __init__(self, units: Units) -> None:
        flow: Flow = units.flow
        free = flow.atoms.components(with_pins=False)
        self._stated: dict[int, tuple[str, str]] = {}
        for pin in flow.atoms.pins:
            for component in np.unique(free[pin.atoms]).tolist():
                self._stated.setdefault(component, (pin.what, pin.reason))
        for component, stated in units.broken.items():
            self._stated.setdefault(int(free[component]), stated)
        self._atoms: dict[str, list[int]] = defaultdict(list)
        for slot in flow.slots:
            self._atoms[slot.node] += np.unique(free[slot.layer]).tolist()

    def of(self, node: str) -> tuple[str, str]:
        """Return what holds a node's channels, and the reason."""
        for component in self._atoms.get(node, ()):
            if component in self._stated:
                return self._stated[component]
        return node, "none of its channels can be removed alone"
