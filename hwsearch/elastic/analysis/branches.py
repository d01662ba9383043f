"""Branches: what residual additions add, and whole layers that are repeated."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import onnx

from hwsearch.elastic.graph import Branch, Graph, RepeatedLayer

_NORMS = frozenset(("BatchNormalization", "LayerNormalization", "RMSNormalization"))
# Repeated layers have these in common; windows that are shifted in every other one are not.
_CHARACTERISTIC = _NORMS | {"Conv", "Einsum", "Gemm", "MatMul", "Softmax"}


@dataclass(eq=False)
class _Wiring:
    """Who makes and who reads each value of a graph; nodes that no output needs do not count."""

    graph: Graph
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    maker: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    outputs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.nodes = list(self.graph.proto.graph.node)
        for number, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.maker[name] = number
        self.outputs = frozenset(value.name for value in self.graph.proto.graph.output)
        needed = set(self.outputs)
        for number, node in reversed(list(enumerate(self.nodes))):
            if needed & set(node.output):
                needed |= set(node.input)
                for name in set(node.input):
                    self.readers[name].append(number)

    def needed_by(self, name: str, reader: int) -> list[int]:
        """Return the nodes that only ``reader`` needs, for its input ``name``; ascending."""
        inside: set[int] = set()
        waiting = [self.maker.get(name)]
        if self.outputs & {name} or len(self.readers[name]) > 1:
            return []
        while waiting:
            # Nodes are visited from the back, so that all readers have been before.
            number = max((each for each in waiting if each is not None), default=None)
            if number is None:
                break
            waiting = [each for each in waiting if each != number]
            node = self.nodes[number]
            outside = {reader} if name in node.output else set()
            alone = all(
                set(self.readers[each]) <= inside | outside and each not in self.outputs
                for each in node.output
                if each
            )
            if alone:
                inside.add(number)
                waiting += [self.maker.get(each) for each in node.input]
        return sorted(inside)

    def outside_inputs(self, numbers: Iterable[int]) -> set[str]:
        """Return the values that some nodes read and others make; weights are none."""
        inside = set(numbers)
        made = {name for number in inside for name in self.nodes[number].output}
        read = {name for number in inside for name in self.nodes[number].input if name}
        return {name for name in read - made if name not in self.graph.weights}

    def depends(self, names: Collection[str], sources: Collection[str]) -> bool:
        """Return whether one of ``names`` is one of ``sources`` or is computed from one."""
        earliest = min((self.maker.get(name, -1) for name in sources), default=-1)
        waiting, seen = list(names), set(names)
        while waiting:
            name = waiting.pop()
            if name in sources:
                return True
            number = self.maker.get(name, -1)
            if number > earliest:
                new = set(self.nodes[number].input) - seen
                seen |= new
                waiting += new
        return False


def find_branches(
    graph: Graph, macs: Mapping[str, int]
) -> tuple[list[Branch], list[RepeatedLayer]]:
    """Return branches and repeated layers without names, in the order of the graph.

    ``macs`` are those of nodes; what has none is no branch.
    """
    wiring = _Wiring(graph)
    branches = []
    for number, node in enumerate(wiring.nodes):
        if node.op_type == "Add":
            for side in (0, 1):
                found = _branch(wiring, number, side, macs)
                if found is not None:
                    branches.append(found)
                    break
    return branches, _layers(wiring, branches)


def _branch(wiring: _Wiring, number: int, side: int, macs: Mapping[str, int]) -> Branch | None:
    """Return the branch on one side of an addition, if the other is the stream it reads."""
    node = wiring.nodes[number]
    added, stream = node.input[side], node.input[1 - side]
    if added == stream:
        return None
    shapes = wiring.graph.shapes
    if stream in wiring.graph.weights or shapes.get(stream) != shapes.get(node.output[0]):
        return None
    own = wiring.needed_by(added, number)
    names = [wiring.nodes[each].name for each in own]
    inside = sum(macs.get(name, 0) for name in names)
    if inside in (0, sum(macs.values())):
        return None
    # The sum may be of several branches beside one another: x + f(x) + g(x).
    streams = {stream}
    maker = wiring.maker.get(stream)
    while maker is not None and wiring.nodes[maker].op_type == "Add":
        streams |= set(wiring.nodes[maker].input) - set(wiring.graph.weights)
        before = [wiring.maker.get(name) for name in wiring.nodes[maker].input]
        maker = max((each for each in before if each is not None), default=None)
    if not wiring.depends(wiring.outside_inputs(own), streams):
        return None
    return Branch(
        name="",
        node=node.name,
        side=side,
        nodes=tuple(names),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """A branch with the norm behind it, if there is one: from ``begin`` to ``end``."""

    begin: str
    end: str
    nodes: tuple[int, ...]
    normed: bool
    operators: tuple[str, ...]


def _layers(wiring: _Wiring, branches: Iterable[Branch]) -> list[RepeatedLayer]:
    """Return repeated layers of several blocks, or of one with a norm behind the addition."""
    number_of = {node.name: number for number, node in enumerate(wiring.nodes)}
    begins = {wiring.nodes[number_of[b.node]].input[1 - b.side] for b in branches}
    blocks = [_block(wiring, branch, number_of, begins) for branch in branches]
    found = []
    for chain in _chains(blocks):
        kinds = [
            tuple(each for each in block.operators if each in _CHARACTERISTIC) for block in chain
        ]
        period = next((p for p in range(1, len(chain) // 2 + 1) if kinds[p:] == kinds[:-p]), None)
        if period is None or (period == 1 and not chain[0].normed):
            continue
        for first in range(0, len(chain) - period + 1, period):
            parts = chain[first : first + period]
            numbers = sorted(number for block in parts for number in block.nodes)
            begin, end = parts[0].begin, parts[-1].end
            if not _is_closed(wiring, numbers, end):
                continue
            found.append(
                RepeatedLayer(
                    name="",
                    input=begin,
                    output=end,
                    nodes=tuple(wiring.nodes[number].name for number in numbers),
                )
            )
    return found


def _block(
    wiring: _Wiring, branch: Branch, number_of: Mapping[str, int], begins: Collection[str]
) -> _Block:
    numbers = [number_of[name] for name in branch.nodes]
    operators = [wiring.nodes[number].op_type for number in numbers]
    addition = number_of[branch.node]
    numbers.append(addition)
    end = wiring.nodes[addition].output[0]
    begin = wiring.nodes[addition].input[1 - branch.side]
    # The norm behind the last addition of a network that normalises before is not the layer's.
    before = wiring.maker.get(begin)
    follows = before is not None and wiring.nodes[before].op_type in _NORMS
    normed = False
    readers = wiring.readers[end]
    if len(readers) == 1 and end not in wiring.outputs:
        node = wiring.nodes[readers[0]]
        if node.op_type in _NORMS and (node.output[0] in begins or follows):
            numbers.append(readers[0])
            operators.append(node.op_type)
            normed, end = True, node.output[0]
    return _Block(begin, end, tuple(sorted(numbers)), normed, tuple(operators))


def _chains(blocks: Iterable[_Block]) -> list[list[_Block]]:
    """Return runs of blocks that each begin where the one before ends."""
    chains: list[list[_Block]] = []
    for block in blocks:
        for chain in chains:
            if chain[-1].end == block.begin:
                chain.append(block)
                break
        else:
            chains.append([block])
    return chains


def _is_closed(wiring: _Wiring, numbers: Iterable[int], end: str) -> bool:
    """Return whether nothing else reads what some nodes make, other than ``end``."""
    inside = set(numbers)
    return all(
        name == end or (name not in wiring.outputs and set(wiring.readers[name]) <= inside)
        for number in inside
        for name in wiring.nodes[number].output
        if name
    )
