"""Prefix tree: sequences that begin with equal keys share nodes."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class PrefixNode(Generic[T]):
    """A key behind equal keys, in all sequences that have it; the root stands before the first.

    ``items`` has one item of each sequence through the node, in order of insertion; ``ends`` has
    those of the sequences that end there.
    """

    items: list[T] = field(default_factory=list)
    ends: list[T] = field(default_factory=list)
    children: "dict[Hashable, PrefixNode[T]]" = field(default_factory=dict)

    def insert(self, sequence: Iterable[tuple[Hashable, T]]) -> "list[PrefixNode[T]]":
        """Add a sequence of keys and items below this node; return its nodes."""
        path = [self]
        for key, item in sequence:
            path.append(path[-1].children.setdefault(key, PrefixNode()))
            path[-1].items.append(item)
        path[-1].ends += path[-1].items[-1:]
        return path[1:]

    def descendants(self) -> "Iterator[PrefixNode[T]]":
        """Yield all nodes below this one, depth first."""
        waiting = [*reversed(self.children.values())]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children.values())

    def segment(self) -> "list[PrefixNode[T]]":
        """Return the node and those below it up to the first where sequences end or branch."""
        nodes = [self]
        while len(nodes[-1].children) == 1 and not nodes[-1].ends:
            nodes += nodes[-1].children.values()
        return nodes
