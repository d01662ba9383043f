"""Propagation of atoms through a graph, node by node: what rules of operators read and write."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper

from hwsearch.elastic.analysis.atoms import Atoms, Layer, aligned, first_along, varying
from hwsearch.elastic.analysis.integers import MOST, Integer, Integers, constants
from hwsearch.elastic.graph import Graph, Role

Layers = tuple[Layer, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SlotRecord:
    """Atoms along axes of a weight.

    Attributes:
        layer: Atoms; they may depend on several axes, of which a unit takes one in the end.
        axes: For each axis of the layer the axis of the weight, or None where the weight does not
            depend on it.
        roles: For each axis of the layer the slot's role.
    """

    weight: str
    layer: Layer
    axes: tuple[int | None, ...]
    node: str
    roles: tuple[Role, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """An integer that must shrink with the units that lie on a range of an axis.

    Attributes:
        layers: Those of the axis, all of one value.
        node: The node that reads the integer.
        span: The range, if it is not the whole axis.
        sign: -1 for an integer that counts from the end.
    """

    integer: Integer
    layers: Layers
    axis: int
    node: str
    span: tuple[int, int] | None = None
    sign: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """Two layers combined of which ``small`` depends on fewer axes than ``large``.

    The units of ``large`` may lie on those axes, and then they are units of ``small``, or on the
    others, and then ``small`` stays. Which is known when everything else is.
    """

    large: Layer
    small: Layer
    node: str


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """MACs of a node: the product of ``sizes`` and ``constant``.

    Attributes:
        sizes: Of axes that units can lie on.
        layers: For each of these the layers that have it, and its number in them.
    """

    node: str
    constant: int
    sizes: tuple[int, ...]
    layers: tuple[tuple[tuple[Layer, int], ...], ...]

    @property
    def macs(self) -> int:
        """MACs for one sample."""
        return self.constant * math.prod(self.sizes)


@dataclass(eq=False)
class Flow:
    """What is known of a graph's values while its nodes are visited in order.

    Attributes:
        integers: Values that shapes are computed with.
        heads: Atoms that are batch axes of products of two activations.
        sums: Atoms that are added to others.
    """

    graph: Graph
    atoms: Atoms = field(default_factory=Atoms)
    integers: dict[str, Integers] = field(default_factory=dict)
    slots: list[SlotRecord] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    partials: list[Partial] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    grids: dict[int, tuple[Layer, str]] = field(default_factory=dict)
    heads: list[Layer] = field(default_factory=list)
    sums: list[Layer] = field(default_factory=list)
    opset: int = 0

    def __post_init__(self) -> None:
        self._layers: dict[str, Layers] = {}
        self._read = Counter(n for node in self.graph.proto.graph.node for n in node.input)
        self._outputs = {value.name for value in self.graph.proto.graph.output}
        self.opset = max(
            (each.version for each in self.graph.proto.opset_import if not each.domain), default=1
        )

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a value or weight, or None if it is not known."""
        array = self.graph.weights.get(name)
        return self.graph.shapes.get(name) if array is None else array.shape

    def is_constant(self, name: str) -> bool:
        """Return whether a name is that of a weight."""
        return name in self.graph.weights

    def is_shared(self, weight: str) -> bool:
        """Return whether several inputs read a weight, which therefore keeps its shape."""
        return self._read[weight] > 1

    def is_read(self, name: str) -> bool:
        """Return whether a node reads a value, or it is an output of the graph."""
        return self._read[name] > 0 or name in self._outputs

    def layers(self, name: str) -> Layers:
        """Return the layers of a value; a weight has none."""
        return self._layers.get(name, ())

    def give(self, name: str, layers: Iterable[Layer], node: str) -> None:
        """Set the layers of a value."""
        if not name:
            return
        kept: list[Layer] = []
        for layer in self._disjoint(layers, node):
            axes = varying(layer)
            if not axes:
                self.atoms.pin(layer, node, "a value consists of this channel alone")
                continue
            if len(axes) > 1:
                self.grids.setdefault(id(layer), (layer, node))
            kept.append(layer)
        self._layers[name] = tuple(kept)

    def _disjoint(self, layers: Iterable[Layer], node: str) -> list[Layer]:
        """Return layers no two of which depend on one axis, as a reshape can leave them."""
        found: list[Layer] = []
        for given in layers:
            layer = given
            for other in [each for each in found if _overlap(each, layer)]:
                self.atoms.join(other, layer, node)
                layer = first_along(layer, set(varying(layer)) - set(varying(other)))
                found = [each for each in found if each is not other]
            found.append(layer)
        return found

    def integers_of(self, name: str, most: int = MOST) -> Integers | None:
        """Return the integers of a value or of an initialiser of at most that size, or None."""
        found = self.integers.get(name)
        if found is None and name in self.graph.weights:
            array = self.graph.weights[name]
            if array.size <= most and array.dtype.kind in "iub":
                found = self.integers[name] = constants(name, array)
        return found

    def pin(self, layers: Iterable[Layer], node: onnx.NodeProto, reason: str) -> None:
        """Keep what some layers hold."""
        for layer in layers:
            self.atoms.pin(layer, node.name, reason)

    def collapse(
        self, layer: Layer, axes: Collection[int], node: onnx.NodeProto, reason: str
    ) -> Layer | None:
        """Return a layer that does not depend on some axes.

        Units then extend along these axes. A layer that depends on them alone is pinned, and the
        result None.
        """
        inside = [axis for axis in varying(layer) if axis in axes]
        if not inside:
            return layer
        if len(inside) == len(varying(layer)):
            self.atoms.pin(layer, node.name, reason)
            return None
        self.atoms.join_along(layer, inside, node.name)
        return first_along(layer, inside)

    def collapsed(
        self, layers: Layers, axes: Collection[int], node: onnx.NodeProto, reason: str
    ) -> list[Layer]:
        """Return the layers that are left of some after `collapse`."""
        found = (self.collapse(layer, axes, node, reason) for layer in layers)
        return [layer for layer in found if layer is not None]

    def new_along(self, weight: str, axis: int, node: onnx.NodeProto, role: Role) -> Layer:
        """Return a layer of new atoms along one axis of a weight that the node reads whole."""
        shape = self.graph.weights[weight].shape
        layer = self.atoms.new(shape[axis]).reshape(
            [size if a == axis else 1 for a, size in enumerate(shape)]
        )
        self.slot(weight, layer, list(range(len(shape))), node, role)
        return layer

    def slot(
        self,
        weight: str,
        layer: Layer,
        axes: Sequence[int | None],
        node: onnx.NodeProto,
        role: Role | Sequence[Role],
    ) -> None:
        """Record that atoms lie along axes of a weight."""
        if not varying(layer):
            self.atoms.pin(layer, node.name, "a weight has this channel alone")
            return
        if self.is_shared(weight):
            self.atoms.pin(layer, node.name, f"{weight} is read more than once")
            return
        roles = (role,) * layer.ndim if isinstance(role, str) else tuple(role)
        self.slots.append(SlotRecord(weight, layer, tuple(axes), node.name, roles))
        if len(varying(layer)) > 1:
            self.grids.setdefault(id(layer), (layer, node.name))

    def demand(
        self,
        integer: Integer,
        layers: Layers,
        axis: int,
        node: onnx.NodeProto,
        span: tuple[int, int] | None = None,
        sign: int = 1,
    ) -> None:
        """Record that an integer shrinks with an axis, or with a range of it."""
        on_axis = tuple(layer for layer in layers if layer.shape[axis] > 1)
        self.demands.append(Demand(integer, on_axis, axis, node.name, span, sign))

    def merge(
        self,
        operands: Sequence[tuple[str, Sequence[int], Layers]],
        shape: Sequence[int],
        node: onnx.NodeProto,
        role: Role = "through",
        members: dict[int, int] | None = None,
    ) -> list[Layer]:
        """Return the layers of operands combined element by element, with broadcasting.

        Operands are names, shapes and layers; a weight among them becomes a slot of ``role``.
        ``shape`` is that of the result. ``members`` is filled with the number of operands that
        have each resulting layer, by its id.
        """
        rank = len(shape)
        shapes = [(1,) * (rank - len(each)) + tuple(each) for _, each, _ in operands]
        classes: list[tuple[Layer, set[int]]] = []
        for number, (_, _, layers) in enumerate(operands):
            for given in layers:
                layer, users = aligned(given, rank), {number}
                overlapping = [c for c in classes if _overlap(c[0], layer)]
                for other, others in overlapping:
                    layer = self._combined(other, layer, others, users, shapes, node)
                    users |= others
                classes = [c for c in classes if not any(c is o for o in overlapping)]
                classes.append((layer, users))
        result = []
        for layer, users in classes:
            found: Layer | None = layer
            for number, (name, own, _) in enumerate(operands):
                full = [a for a in varying(layer) if shapes[number][a] > 1]
                if number in users or not full or found is None:
                    continue
                if self.is_constant(name):
                    skipped = rank - len(own)
                    axes = [
                        a - skipped if a >= skipped and size > 1 else None
                        for a, size in enumerate(shapes[number])
                    ]
                    self.slot(name, found, axes, node, role)
                else:
                    found = self.collapse(
                        found, full, node, "they are combined with values that cannot shrink"
                    )
            if found is not None:
                result.append(found)
                if members is not None:
                    members[id(found)] = len(users)
        return result

    def _combined(
        self,
        first: Layer,
        second: Layer,
        first_users: set[int],
        second_users: set[int],
        shapes: Sequence[Sequence[int]],
        node: onnx.NodeProto,
    ) -> Layer:
        """Make two overlapping layers equal; return the layer of the result."""
        a, b = set(varying(first)), set(varying(second))
        if a != b and (a < b or b < a):
            large, small = (second, first) if a < b else (first, second)
            users = first_users if a < b else second_users
            outside = a ^ b
            if all(shapes[number][axis] == 1 for number in users for axis in outside):
                self.partials.append(Partial(large, small, node.name))
                return large
        self.atoms.join(first, second, node.name)
        return first_along(first, a - b)


def _overlap(first: Layer, second: Layer) -> bool:
    return any(m > 1 and n > 1 for m, n in zip(first.shape, second.shape, strict=True))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node as Python values; strings are decoded."""
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


Rule = Callable[[Flow, onnx.NodeProto], None]


class NotUnderstoodError(Exception):
    """A rule does not know this use of its operator; the text is the reason, for users."""


def known_shape(flow: Flow, name: str) -> tuple[int, ...]:
    """Return the shape of a value.

    Raises:
        NotUnderstoodError: It is not known.
    """
    shape = flow.shape(name)
    if shape is None:
        raise NotUnderstoodError(f"the shape of {name!r} is not known")
    return shape


def constant_list(flow: Flow, name: str) -> list[int]:
    """Return integers that are known before the model runs.

    Raises:
        NotUnderstoodError: They are not.
    """
    found = flow.integers_of(name)
    if found is None:
        raise NotUnderstoodError(f"{name!r} is only known when the model runs")
    return [each.value for each in found.reshape(-1)]


def axes_of(
    flow: Flow, node: onnx.NodeProto, rank: int, position: int = 1
) -> tuple[int, ...] | None:
    """Return the axes of an operator from its attribute or input, or None if it has neither."""
    given = attributes(node).get("axes")
    if given is None and len(node.input) > position and node.input[position]:
        given = constant_list(flow, node.input[position])
    if given is None:
        return None
    listed: Sequence[int] = [given] if isinstance(given, int) else list(given)
    return tuple(axis % rank for axis in listed)


Rules = Mapping[str, Rule]
