"""Blocks of an elastic model: parts of its graph that have a precision of their own.

A block is a module with a few layers that have weights, such as ``layer3.1`` or
``encoder.layer.4.attention``; a module with more is divided into those in it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic.analysis.liveness import Removable
from hwsearch.elastic.analysis.names import Scopes
from hwsearch.elastic.graph import Structure
from hwsearch.precision import spread

_MOST_LAYERS: Final = 5  # of a block: those of an inverted residual with squeeze and excitation


class Blocks:
    """The blocks of an elastic model.

    Attributes:
        of_nodes: Node -> block.
    """

    def __init__(self, structure: Structure) -> None:
        graph = structure.graph
        scopes, nodes = Scopes(graph), list(graph.proto.graph.node)
        counted = {work.node for work in structure.work}
        weighted = [
            node.name
            for node in nodes
            if node.name in counted and any(name in graph.weights for name in node.input)
        ]
        paths = {node: tuple(scopes.of(node).split(".")) for node in weighted}
        parts = _divided(list(paths.values()), ())
        self._layers: dict[str, list[str]] = {}
        known: dict[str, str] = {}
        for node, path in paths.items():
            block = ".".join(next(part for part in parts if path[: len(part)] == part))
            known[node] = block
            self._layers.setdefault(block, []).append(node)
        self.of_nodes = spread(nodes, lambda node: known.get(node.name))

    def there(self, parts: Sequence[Removable], dropped: NDArray[np.bool_]) -> list[str]:
        """Return the names of the blocks of which a layer is left, in the order of the graph.

        Args:
            parts: What may be left out.
            dropped: (parts,) whether each is.
        """
        gone = {
            node for part, out in zip(parts, dropped, strict=True) if out for node in part.nodes
        }
        return [name for name, nodes in self._layers.items() if not gone.issuperset(nodes)]


def _divided(paths: Sequence[tuple[str, ...]], at: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the modules below one that are blocks, by the paths of the layers in it."""
    if at and (len(paths) <= _MOST_LAYERS or all(path == at for path in paths)):
        return [at]
    if at in paths:  # a layer of the same name as a module with others in it
        return [at]
    found = []
    for part in dict.fromkeys(path[: len(at) + 1] for path in paths):
        found += _divided([path for path in paths if path[: len(part)] == part], part)
    return found
