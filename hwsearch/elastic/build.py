"""Subnets of a trained model as ONNX files: weights sliced, branches left out."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic import wire
from hwsearch.elastic.analysis.liveness import aliases, check_dropped, live_nodes, removables
from hwsearch.elastic.graph import Group, Patch, Slot, Structure
from hwsearch.errors import InputError, unknown

Kept = Mapping[str, NDArray[np.bool_]]
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_SKELETONS_KEPT = 256


def sliced(
    structure: Structure,
    kept: Kept,
    dropped: Collection[str] = (),
    replaced: Mapping[str, NDArray[Any]] = _NOTHING,
) -> onnx.ModelProto:
    """Return the subnet that keeps these units; see `Slicer.serialised`."""
    return wire.parsed(Slicer(structure).serialised(kept, dropped, replaced))


def zeroed(
    structure: Structure,
    kept: Kept,
    dropped: Collection[str] = (),
    shapes: Mapping[str, tuple[int, ...]] = _NOTHING,
) -> onnx.ModelProto:
    """Return the whole model with zeros in the weights that read removed units.

    What dropped branches and layers compute is multiplied by zero. For groups that are exact, its
    outputs are those of the sliced subnet without replaced weights. See `Slicer.serialised` for
    the arguments.
    """
    graph = structure.graph
    keeps = _checked(structure, kept, dropped)
    weights = dict(graph.weights)
    for group in structure.groups:
        for slot in group.slots if group.name in keeps else ():
            if slot.role == "in":
                removed = slot.positions[~keeps[group.name]].ravel()
                weights[slot.weight] = weights[slot.weight].copy()
                np.moveaxis(weights[slot.weight], slot.axis, 0)[removed] = 0
    nodes = _zeroed_nodes(structure, dropped, weights)
    return wire.parsed(
        wire.model(
            graph.proto,
            (node.SerializeToString(deterministic=True) for node in nodes),
            (wire.tensor(name, array) for name, array in weights.items()),
            _inputs(graph.proto.graph, shapes),
            graph.proto.graph.output,
        )
    )


class Slicer:
    """Writes the subnets of one structure; what subnets have in common is prepared once."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        graph = structure.graph
        self._parts = removables(structure)
        self._axes: dict[str, dict[int, list[tuple[str, Slot]]]] = {}
        self._patches: dict[str, list[tuple[str, Patch]]] = {}
        for group in structure.groups:
            for slot in group.slots:
                axes = self._axes.setdefault(slot.weight, {})
                axes.setdefault(slot.axis, []).append((group.name, slot))
            for patch in group.patches:
                self._patches.setdefault(patch.target, []).append((group.name, patch))
        self._constant = {
            name: wire.tensor(name, array)
            for name, array in graph.weights.items()
            if name not in self._axes and name not in self._patches
        }
        self._skeleton = lru_cache(maxsize=_SKELETONS_KEPT)(self._new_skeleton)

    def serialised(
        self,
        kept: Kept,
        dropped: Collection[str] = (),
        replaced: Mapping[str, NDArray[Any]] = _NOTHING,
        shapes: Mapping[str, tuple[int, ...]] = _NOTHING,
    ) -> memoryview:
        """Return a subnet as the content of an ONNX file; equal arguments give equal bytes.

        Args:
            kept: Group -> which of its units are kept: (size,) bool. Others keep all of theirs.
            dropped: Branches and layers that are left out.
            replaced: Initialiser -> its new values. An axis is either whole or already sliced.
            shapes: Input -> its shape for one sample, where it is another than the model's.

        Raises:
            InputError: There is no such group or branch, or the units to keep are not valid.
        """
        keeps = _checked(self.structure, kept, dropped)
        skeleton = self._skeleton(frozenset(dropped))
        indices = _Indices(self.structure, self._axes, keeps)
        changes = self._changes(keeps)
        return wire.model(
            self.structure.graph.proto,
            self._serialised_nodes(skeleton, changes),
            (self._tensor(name, indices, changes, replaced) for name in skeleton.weights),
            _inputs(self.structure.graph.proto.graph, shapes),
            self.structure.graph.proto.graph.output,
        )

    def live_weights(self, dropped: Collection[str]) -> frozenset[str]:
        """Return the initialisers that remain without these branches."""
        return self._skeleton(frozenset(dropped)).weight_names

    def _tensor(
        self,
        name: str,
        indices: "_Indices",
        changes: Mapping[str, Mapping[tuple[str, int], int]],
        replaced: Mapping[str, NDArray[Any]],
    ) -> wire.Tensor:
        if name in self._constant and name not in replaced:
            return self._constant[name]
        given = self.structure.graph.weights[name]
        new, shape = replaced.get(name, given), list(np.shape(replaced.get(name, given)))
        taken: list[tuple[int, NDArray[np.int64]]] = []
        for axis in sorted(self._axes.get(name, ())):
            index = indices.of(name, axis)
            if index is None or shape[axis] == len(index):
                continue
            if shape[axis] != given.shape[axis]:
                raise ValueError(
                    f"axis {axis} of the new {name!r} has {shape[axis]} positions; it needs "
                    f"{given.shape[axis]} or the {len(index)} that are kept"
                )
            taken.append((axis, index))
            shape[axis] = len(index)
        if len(shape) != given.ndim:
            raise ValueError(f"the new {name!r} has the shape {shape}, not as {given.shape}")

        subtracted: Mapping[tuple[str, int], int] = changes.get(name, {})
        data = partial(_made, new, given.dtype, taken, subtracted)
        return wire.later(name, given.dtype, tuple(shape), data)

    def _changes(self, keeps: Kept) -> dict[str, dict[tuple[str, int], int]]:
        """Return target -> (attribute, position) -> what the removed units take off."""
        found: dict[str, dict[tuple[str, int], int]] = {}
        for target, patches in self._patches.items():
            for group, patch in patches:
                if group in keeps and (amount := int(patch.amounts[~keeps[group]].sum())):
                    place, own = (patch.attribute, patch.position), found.setdefault(target, {})
                    own[place] = own.get(place, 0) + amount
        return found

    def _serialised_nodes(
        self, skeleton: "_Skeleton", changes: Mapping[str, Mapping[tuple[str, int], int]]
    ) -> Iterable[bytes]:
        for node, content in skeleton.nodes:
            if node.name not in changes:
                yield content
                continue
            patched = onnx.NodeProto()
            patched.CopyFrom(node)
            attributes = {each.name: each for each in patched.attribute}
            for (name, position), amount in changes[node.name].items():
                attribute = attributes[name]
                if attribute.type == onnx.AttributeProto.INT:
                    attribute.i -= amount
                elif attribute.type == onnx.AttributeProto.INTS:
                    attribute.ints[position] -= amount
                else:
                    values = onnx.numpy_helper.to_array(attribute.t).copy()
                    values.reshape(-1)[position] -= amount
                    attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))
            yield patched.SerializeToString(deterministic=True)

    def _new_skeleton(self, dropped: frozenset[str]) -> "_Skeleton":
        structure, graph = self.structure, self.structure.graph.proto.graph
        absent = np.array([[part.name in dropped for part in self._parts]], np.bool_)
        (live,) = live_nodes(graph, self._parts, absent)
        replaced = aliases(self._parts, dropped)
        outputs = dict.fromkeys(output.name for output in graph.output)
        nodes: list[onnx.NodeProto] = []
        for given, needed in zip(graph.node, live, strict=True):
            if needed:
                node = onnx.NodeProto()
                node.CopyFrom(given)
                for position, name in enumerate(given.input):
                    node.input[position] = replaced.get(name, name)
                nodes.append(node)
        for name in (each for each in outputs if each in replaced):
            nodes.append(onnx.helper.make_node("Identity", [replaced[name]], [name], name))
        read = set(chain.from_iterable(node.input for node in nodes))
        return _Skeleton(
            nodes=[(node, node.SerializeToString(deterministic=True)) for node in nodes],
            weights=[name for name in structure.graph.weights if name in read],
            weight_names=frozenset(read & structure.graph.weights.keys()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Skeleton:
    """Nodes, as messages and as bytes, and initialisers that remain without some branches."""

    nodes: list[tuple[onnx.NodeProto, bytes]]
    weights: list[str]
    weight_names: frozenset[str]


def _made(
    array: NDArray[Any],
    dtype: np.dtype[Any],
    taken: Sequence[tuple[int, NDArray[np.int64]]],
    subtracted: Mapping[tuple[str, int], int],
) -> NDArray[Any]:
    """Return an array with amounts subtracted at flat positions, then sliced along axes."""
    array = np.asarray(array, dtype)
    if subtracted:
        array = array.copy()
        flat = array.reshape(-1)
        for (_, position), amount in subtracted.items():
            flat[position] -= amount
    for axis, index in taken:
        array = np.take(array, index, axis, mode="clip")
    return array


def _zeroed_nodes(
    structure: Structure, dropped: Collection[str], weights: dict[str, NDArray[Any]]
) -> list[onnx.NodeProto]:
    """Return all nodes; dropped parts are replaced by ``input + 0 * output``.

    The zeros are put into the weights.
    """
    parts = [part for part in removables(structure) if part.name in dropped]
    zeroed = {part.output: part for part in reversed(parts)}
    nodes = []
    for given in structure.graph.proto.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(given)
        nodes.append(node)
        for position, name in enumerate(given.output):
            if name in zeroed:
                whole, zero, nothing = (f"{name}.{what}" for what in ("whole", "zero", "nothing"))
                node.output[position] = whole
                weights[zero] = np.zeros((), np.float32)
                # A branch's own addition computes the sum, of which only the input is left.
                nodes.append(onnx.helper.make_node("Mul", [whole, zero], [nothing], nothing))
                sum_of = [zeroed[name].input, nothing]
                nodes.append(onnx.helper.make_node("Add", sum_of, [name], f"{name}.sum"))
    return nodes


class _Indices:
    """Positions along the axes of weights that remain, each set of slots computed once."""

    def __init__(
        self,
        structure: Structure,
        axes: Mapping[str, Mapping[int, list[tuple[str, Slot]]]],
        keeps: Kept,
    ) -> None:
        self._weights, self._axes, self._keeps = structure.graph.weights, axes, keeps
        self._found: dict[tuple[Any, ...], NDArray[np.int64]] = {}

    def of(self, weight: str, axis: int) -> NDArray[np.int64] | None:
        """Return the remaining positions, ascending; None if all remain."""
        slots = [each for each in self._axes[weight][axis] if each[0] in self._keeps]
        if not slots:
            return None
        size = self._weights[weight].shape[axis]
        key = (size, *((group, id(slot.positions)) for group, slot in slots))
        if key not in self._found:
            remain = np.ones(size, np.bool_)
            for group, slot in slots:
                remain[slot.positions[~self._keeps[group]]] = False
            self._found[key] = np.flatnonzero(remain)
        return self._found[key]


def _inputs(
    graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]
) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a graph; those with new shapes keep their first axis, the batch."""
    inputs = []
    for given in graph.input:
        value = onnx.ValueInfoProto()
        value.CopyFrom(given)
        if given.name in shapes:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims[1:], shapes[given.name][1:], strict=True):
                dim.dim_value = size
        inputs.append(value)
    return inputs


def _checked(structure: Structure, kept: Kept, dropped: Collection[str]) -> Kept:
    """Return the groups that lose units; raise InputError for what cannot be."""
    groups = {group.name: group for group in structure.groups}
    found = {}
    for name, units in kept.items():
        if name not in groups:
            raise unknown("group", name, groups)
        _check_units(groups[name], units)
        if not units.all():
            found[name] = units
    check_dropped(removables(structure), dropped)
    return found


def _check_units(group: Group, units: NDArray[np.bool_]) -> None:
    if units.shape != (group.size,) or units.dtype != np.bool_ or not units.any():
        raise InputError(
            f"the units of group {group.name!r} are {units.dtype} of shape {units.shape}, "
            f"{int(np.count_nonzero(units))} of them kept; give {group.size} bools, one at least "
            "true"
        )
    if len(group.parts):
        sizes = np.bincount(group.parts)
        shares = np.bincount(group.parts, weights=units, minlength=len(sizes))[sizes > 0]
        sizes = sizes[sizes > 0]
        if (shares * sizes[0] != shares[0] * sizes).any():
            raise InputError(
                f"the parts of group {group.name!r} keep {shares.astype(int).tolist()} of "
                f"{sizes.tolist()} units; every part keeps the same share"
            )
