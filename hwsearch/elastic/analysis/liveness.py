"""Branches and layers that are left out, and the nodes that the outputs then still need."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic.graph import Structure
from hwsearch.errors import InputError, unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """A branch or a repeated layer: without it, what reads ``output`` reads ``input``.

    Attributes:
        name: Of the branch or layer.
        nodes: The nodes that nothing else needs, without the addition of a branch.
        addition: The addition of a branch; empty for a layer.
    """

    name: str
    output: str
    input: str
    nodes: tuple[str, ...]
    addition: str = ""


def removables(structure: Structure) -> tuple[Removable, ...]:
    """Return all layers, then all branches, which may lie in the layers."""
    nodes = {node.name: node for node in structure.graph.proto.graph.node}
    layers = [
        Removable(name=each.name, output=each.output, input=each.input, nodes=each.nodes)
        for each in structure.layers
    ]
    branches = [
        Removable(
            name=each.name,
            output=nodes[each.node].output[0],
            input=nodes[each.node].input[1 - each.side],
            nodes=each.nodes,
            addition=each.node,
        )
        for each in structure.branches
    ]
    return (*layers, *branches)


def live_nodes(
    graph: onnx.GraphProto, parts: Sequence[Removable], dropped: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which nodes the outputs need: (n, nodes) for n sets of parts that are left out.

    Args:
        graph: Its nodes are in topological order.
        parts: What can be left out, outer ones first.
        dropped: (n, parts): what is.
    """
    of_output: dict[str, list[int]] = {}
    for column, part in enumerate(parts):
        of_output.setdefault(part.output, []).append(column)
    needed: dict[str, NDArray[np.bool_]] = {}
    for output in graph.output:
        needed[output.name] = np.ones(len(dropped), np.bool_)
    live = np.zeros((len(graph.node), len(dropped)), np.bool_)
    for row, node in reversed(list(enumerate(graph.node))):
        for name in node.output:
            wanted = needed.get(name)
            if wanted is None:
                continue
            for column in of_output.get(name, ()):
                _need(needed, parts[column].input, wanted & dropped[:, column])
                wanted = wanted & ~dropped[:, column]
            live[row] |= wanted
        for name in node.input:
            _need(needed, name, live[row])
    return live.T


def aliases(parts: Sequence[Removable], dropped: Collection[str]) -> dict[str, str]:
    """Return value -> the value that takes its place, where parts are left out."""
    found: dict[str, str] = {}
    for part in parts:
        if part.name in dropped:
            found.setdefault(part.output, part.input)
    for value in found:
        while found[value] in found:
            found[value] = found[found[value]]
    return found


def check_dropped(parts: Sequence[Removable], dropped: Collection[str]) -> None:
    """Raise InputError for an unknown part, and for both sides of an addition."""
    known = {part.name: part for part in parts}
    sides: dict[str, str] = {}
    for name in sorted(dropped):
        if name not in known:
            raise unknown("branch", name, known)
        addition = known[name].addition
        other = sides.setdefault(addition, name) if addition else name
        if other != name:
            raise InputError(
                f"branches {other!r} and {name!r} are the two sides of one addition; drop one"
            )


def _need(needed: dict[str, NDArray[np.bool_]], name: str, wanted: NDArray[np.bool_]) -> None:
    needed[name] = needed[name] | wanted if name in needed else wanted
