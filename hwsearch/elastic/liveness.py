"""Nodes that the outputs of a graph still need once branches are left out."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic.graph import Branch


def live_nodes(
    graph: onnx.GraphProto, branches: Sequence[Branch], dropped: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which nodes the outputs need: (n, nodes) for n sets of branches that are left out.

    The addition of a dropped branch counts as needed where its value is.

    Args:
        graph: Its nodes are in topological order.
        branches: What can be left out.
        dropped: (n, branches): what is.
    """
    positions: dict[str, dict[int, int]] = {}
    for position, branch in enumerate(branches):
        positions.setdefault(branch.node, {})[branch.side] = position
    needed: dict[str, NDArray[np.bool_]] = {}
    for output in graph.output:
        needed[output.name] = np.ones(len(dropped), np.bool_)
    live = np.zeros((len(graph.node), len(dropped)), np.bool_)
    for row, node in reversed(list(enumerate(graph.node))):
        for name in node.output:
            if name in needed:
                live[row] |= needed[name]
        sides = positions.get(node.name, {})
        for side, name in enumerate(node.input):
            reads = live[row] & ~dropped[:, sides[side]] if side in sides else live[row]
            needed[name] = needed[name] | reads if name in needed else reads
    return live.T


def aliases(
    graph: onnx.GraphProto, branches: Sequence[Branch], dropped: Mapping[str, bool]
) -> dict[str, str]:
    """Return sum -> the value that takes its place, for the additions of dropped branches."""
    nodes = {node.name: node for node in graph.node}
    found: dict[str, str] = {}
    for branch in branches:
        if dropped.get(branch.name):
            node = nodes[branch.node]
            found[node.output[0]] = node.input[1 - branch.side]
    for value in found:
        while found[value] in found:
            found[value] = found[found[value]]
    return found
