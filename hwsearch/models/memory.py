"""Peak memory of the activations and weight traffic of architectures, from their ONNX graphs.

Activations are the inputs, the outputs and all values between nodes. A value is live from the
node that writes it to the last node that reads it; the inputs of a model are live from the start,
its outputs to the end. Nodes run in the order of the file, and none writes over its input. Views
(`VIEWS`) share the memory of their input. Weights are not activations: neither initialisers nor
the outputs of ``Constant`` nodes count for the peak.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hwsearch.errors import EvaluationError
from hwsearch.models.export import to_onnx
from hwsearch.models.onnx_file import inferred_values, static_shape
from hwsearch.quantities import Quantity
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.exact_costs import WORTH_AN_INDEX
from hwsearch.supernets.supernet import Supernet

VIEWS: Final = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
IntArray = NDArray[np.int64]


def peak_memory(model: onnx.ModelProto, batch: int = 1) -> int:
    """Return the largest number of bytes of activations that are live at one node."""
    return max(live_bytes(model, batch), default=0)


def weight_traffic(model: onnx.ModelProto) -> int:
    """Return the bytes of the initialisers that one inference reads."""
    used = {name for node in model.graph.node for name in _reads(node)}
    return sum(_tensor_bytes(t) for t in model.graph.initializer if t.name in used)


def live_bytes(model: onnx.ModelProto, batch: int = 1) -> list[int]:
    """Return the bytes of activations that are live at each node, in order."""
    graph, sizes = model.graph, _activation_bytes(model, batch)
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {name for n in graph.node if n.op_type == "Constant" for name in n.output}
    owner = {each.name: each.name for each in graph.input if each.name not in weights}
    first, last = dict.fromkeys(owner, 0), dict[str, int]()
    for at, node in enumerate(graph.node):
        for name in _reads(node):
            if name in owner:
                last[owner[name]] = at
        for name in node.output:
            if not name or name in weights:
                continue
            is_view = node.op_type in VIEWS and node.input[0] in owner
            owner[name] = owner[node.input[0]] if is_view else name
            first.setdefault(owner[name], at)
            last[owner[name]] = max(at, last.get(owner[name], at))
    for value in graph.output:
        if value.name in owner:
            last[owner[value.name]] = len(graph.node) - 1
    change = [0] * (len(graph.node) + 1)
    for name, begin in first.items():
        if name not in last:  # an input that no node reads takes no memory
            continue
        if name not in sizes:
            raise EvaluationError(
                f"the memory of {name!r} is not known: its shape or type cannot be inferred"
            )
        change[begin] += sizes[name]
        change[last[name] + 1] -= sizes[name]
    return list(accumulate(change[:-1]))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, including those its subgraphs capture."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def _activation_bytes(model: onnx.ModelProto, batch: int) -> dict[str, int]:
    """Return name -> bytes of every value whose shape follows from those of the inputs."""
    sizes = {}
    for value in inferred_values(model, batch):
        shape, kind = static_shape(value), value.type.tensor_type.elem_type
        if shape is not None and kind not in (TensorProto.UNDEFINED, TensorProto.STRING):
            sizes[value.name] = helper.tensor_dtype_to_np_dtype(kind).itemsize * math.prod(shape)
    return sizes


def _tensor_bytes(tensor: TensorProto) -> int:
    width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * int(width)


class _Footprints:
    """Peak memory and weight traffic of the architectures of one network, cached.

    For a chain of blocks the peak is the maximum over its blocks and the traffic their sum, so
    that only one model per block has to be built.
    """

    def __init__(self) -> None:
        self.of_keys: dict[str, tuple[int, int]] = {}
        self.of_specs: dict[object, tuple[int, int]] | None = {}  # None: no chain of such blocks

    def values(self, net: Supernet, archs: Architectures) -> IntArray:
        """Return (n, 2) bytes of n architectures: peak memory and weight traffic."""
        if self.of_specs is not None and len(archs) + len(self.of_keys) >= WORTH_AN_INDEX:
            found = self._by_blocks(net, archs)
            if found is not None:
                return found
        for arch in archs:
            if arch.key not in self.of_keys:
                own = Architecture(net.network.space, arch.mapping)
                self.of_keys[arch.key] = self._built(net, own)
        return np.array([self.of_keys[key] for key in archs.ids], np.int64).reshape(-1, 2)

    def _by_blocks(self, net: Supernet, archs: Architectures) -> IntArray | None:
        found = net.costs.index(archs)
        if found is None:
            return None
        index, own = found
        numbers = index.numbers(own)
        table = np.zeros((len(index.specs) + 1, 2), np.int64)  # the last row is an absent block
        for number in np.unique(numbers[numbers >= 0]):
            spec = index.specs[number]
            if self.of_specs is not None and spec not in self.of_specs:
                example = index.examples[int(number)].mapping
                self._built(net, Architecture(net.network.space, example))
            if self.of_specs is None:
                return None
            table[number] = self.of_specs[spec]
        return np.column_stack([table[numbers, 0].max(axis=1), table[numbers, 1].sum(axis=1)])

    def _built(self, net: Supernet, arch: Architecture) -> tuple[int, int]:
        """Build the model of an architecture; cache the values of its blocks."""
        model, blocks = to_onnx(net, arch), net.blocks(arch)
        live = live_bytes(model)
        whole = max(live, default=0), weight_traffic(model)
        if self.of_specs is None:
            return whole
        of_blocks = _of_blocks(model, live, [block.name for block in blocks or ()])
        if (max((p for p, _ in of_blocks), default=-1), sum(t for _, t in of_blocks)) != whole:
            self.of_specs = None
            return whole
        for block, found in zip(blocks or (), of_blocks, strict=True):
            if self.of_specs is not None and self.of_specs.setdefault(block.spec, found) != found:
                self.of_specs = None
        return whole


def _of_blocks(
    model: onnx.ModelProto, live: Sequence[int], names: Sequence[str]
) -> list[tuple[int, int]]:
    """Return peak memory and weight traffic of each block, by the prefixes of node names."""
    sizes = {tensor.name: _tensor_bytes(tensor) for tensor in model.graph.initializer}
    peaks, reads = dict.fromkeys(names, 0), {name: set[str]() for name in names}
    for node, amount in zip(model.graph.node, live, strict=True):
        name = node.name.partition("/")[0]
        if name in peaks:
            peaks[name] = max(peaks[name], amount)
            reads[name] |= sizes.keys() & set(_reads(node))
    return [(peaks[name], sum(sizes[each] for each in reads[name])) for name in names]


def _footprints(net: Supernet, archs: Architectures) -> IntArray:
    footprints: _Footprints = net.caches.setdefault("footprints", _Footprints())
    return footprints.values(net, net.structures_of(archs))


PEAK_MEMORY: Final = Quantity(
    name="peak_memory",
    title="peak memory",
    summary="Bytes of the activations that are live at once, at most, for one sample in float32; "
    "weights are not among them.",
    unit="bytes",
    direction="min",
    exact=lambda net, archs: _footprints(net, archs)[:, 0],
    of_float32=True,
)
WEIGHT_TRAFFIC: Final = Quantity(
    name="weight_traffic",
    title="weight traffic",
    summary="Bytes of the weights that one inference reads in float32, batch norm folded.",
    unit="bytes",
    direction="min",
    exact=lambda net, archs: _footprints(net, archs)[:, 1],
    of_float32=True,
)
