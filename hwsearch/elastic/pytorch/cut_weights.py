"""New values of a module's state dict, from the sliced weights of a graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from hwsearch.elastic.graph import Slot, Structure
from hwsearch.elastic.pytorch.match import Array, Match, Matcher, norms_of
from hwsearch.errors import InputError

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_NEAR_ZERO = 1e-20  # factors of a batch norm that cannot be divided by


@dataclass(slots=True)
class Changes:
    """What a cut changes in a module.

    Attributes:
        entries: Entry of the state dict -> its new values.
        added: Module -> bias that it gets, and had not before.
        groups: Module -> number of groups of its convolution.
    """

    entries: dict[str, Array] = field(default_factory=dict)
    added: dict[str, Array] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)


def changes_of(
    structure: Structure,
    module: nn.Module,
    kept: Mapping[str, NDArray[np.bool_]],
    model: onnx.ModelProto,
) -> Changes:
    """Return what a cut changes in a module.

    Args:
        structure: Of the whole model; its weights are those of the module.
        module: Whole, without the branches that the subnet does not have.
        kept: Group -> its kept units, (size,) bool.
        model: The subnet's ONNX model, as of `hwsearch.elastic.build.sliced`.

    Raises:
        InputError: A weight that changes comes from no entry of the state dict.
    """
    return _Transfer(structure, module, kept, model).changes()


class _Transfer:
    def __init__(
        self,
        structure: Structure,
        module: nn.Module,
        kept: Mapping[str, NDArray[np.bool_]],
        model: onnx.ModelProto,
    ) -> None:
        self.graph, self.kept, self.model = structure.graph, kept, model
        self.matcher = Matcher(structure.graph, module)
        self.norms = norms_of(module)
        self.new = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self.slots: dict[str, list[tuple[str, Slot]]] = {}
        for group in structure.groups:
            for slot in group.slots if group.name in kept else ():
                self.slots.setdefault(slot.weight, []).append((group.name, slot))
        self.found = Changes()
        self.lost: list[str] = []

    def changes(self) -> Changes:
        done: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type in _PRODUCTS:
                done |= self._product(node)
        for name in self.new:
            if name not in done and self._has_changed(name):
                self._copy(name)
        if self.lost:
            others = f" and {len(self.lost) - 1} others" if len(self.lost) > 1 else ""
            raise InputError(
                f"the module cannot be cut: weight {self.lost[0]!r} of its graph{others} comes "
                "from no entry of its state dict by value; forward computes it, or the module has "
                "other weights than the elastic model. Use the exported ONNX model, or freeze the "
                "choices that change it"
            )
        return self.found

    def _has_changed(self, name: str) -> bool:
        """Return whether a weight, and no integer of a shape, differs from the original's."""
        old, new = self.graph.weights.get(name), self.new[name]
        return old is not None and old.dtype.kind == "f" and not np.array_equal(old, new)

    def _product(self, node: onnx.NodeProto) -> set[str]:
        """Transfer weight and bias of a layer; return the initialisers that this is."""
        names = [name for name in node.input[1:3] if name in self.new]
        if not any(self._has_changed(name) for name in names):
            return set()
        weight = next((name for name in names if self.graph.weights[name].ndim > 1), None)
        match = None if weight is None else self.matcher.of(weight)
        if weight is None or match is None:
            return set()  # each by itself
        bias = next((name for name in names if name != weight), None)
        owner = match.entry.rpartition(".")[0]
        for attribute in node.attribute:
            if attribute.name == "group":
                self.found.groups[owner] = attribute.i
        if match.norm:
            self._unfold(weight, bias, match, owner)
        else:
            self._put(match.entry, _placed(self.new[weight], match))
            if bias is not None:
                self._bias(bias, owner)
        return {weight} | ({bias} if bias is not None else set())

    def _bias(self, bias: str, owner: str) -> None:
        entry, new = f"{owner}.bias" if owner else "bias", self.new[bias]
        if entry in self.matcher.state:
            self._put(entry, new.reshape(-1))
        elif new.any():
            self.found.added[owner] = new.reshape(-1)

    def _unfold(self, weight: str, bias: str | None, match: Match, owner: str) -> None:
        """Take a batch norm out of a weight and bias again; its scale and shift stay.

        The weight is divided by the norm's factors, and what the bias adds goes into the norm's
        mean: in training, where the mean follows the data, the layer then goes on from there.
        """
        norm: Any = self.norms[match.norm]
        axis = self._output_axis(weight, match)
        remain = self._remaining(weight, axis)

        def part(name: str, default: float) -> NDArray[np.float64]:
            tensor = getattr(norm, name, None)
            if tensor is None:
                return np.full(len(remain), default)
            return np.asarray(tensor.detach().numpy()[remain], np.float64)

        scale, shift = part("weight", 1), part("bias", 0)
        mean, variance = part("running_mean", 0), part("running_var", 1)
        factor = scale / np.sqrt(variance + norm.eps)
        dead = np.abs(factor) < _NEAR_ZERO
        scale = np.where(dead, np.sqrt(variance + norm.eps), scale)
        factor = np.where(dead, 1.0, factor)
        shape = [1] * self.new[weight].ndim
        shape[axis] = -1
        self._put(match.entry, _placed(self.new[weight] / factor.reshape(shape), match))
        own = self.matcher.state.get(f"{owner}.bias")
        given = 0.0 if own is None else np.asarray(own[remain], np.float64)
        if own is not None:
            self._put(f"{owner}.bias", own[remain])
        if bias is not None:
            mean = given - (self.new[bias].astype(np.float64).reshape(-1) - shift) / factor
        prefix = f"{match.norm}." if match.norm else ""
        for name, array in (
            ("weight", scale), ("bias", shift), ("running_mean", mean), ("running_var", variance)
        ):  # fmt: skip
            if prefix + name in self.matcher.state:
                self._put(prefix + name, array)
            elif name == "weight" and dead.any():
                self.lost.append(weight)

    def _output_axis(self, weight: str, match: Match) -> int:
        """Return the axis of a weight that a folded norm scales."""
        size = len(self.norms[match.norm].running_var)  # type: ignore[arg-type]
        shape = self.graph.weights[weight].shape
        axes = [axis for axis, length in enumerate(shape) if length == size]
        is_linear = len(shape) == 2
        return axes[-1] if is_linear and match.axes[0] != 0 else axes[0]

    def _remaining(self, weight: str, axis: int) -> NDArray[np.int64]:
        """Return the positions along an axis of a weight that remain."""
        remain = np.ones(self.graph.weights[weight].shape[axis], np.bool_)
        for group, slot in self.slots.get(weight, ()):
            if slot.axis == axis:
                remain[slot.positions[~self.kept[group]]] = False
        return np.flatnonzero(remain)

    def _copy(self, name: str) -> None:
        """Transfer an initialiser that is no weight of a convolution or linear layer."""
        match = self.matcher.of(name)
        if match is not None and not match.norm:
            self._put(match.entry, _placed(self.new[name], match))
            return
        slots = self.slots.get(name, ())
        for group, slot in slots if len({each.axis for _, each in slots}) == 1 else ():
            for prefix in self._modules_of(group):
                part = self.matcher.part_of(name, slot.axis, prefix)
                if part is not None:
                    entry = self.matcher.state[part.entry]
                    remain = self._remaining(name, slot.axis)
                    self._put(part.entry, np.take(entry, remain, part.axes[slot.axis]))
                    return
        self.lost.append(name)

    def _modules_of(self, group: str) -> list[str]:
        """Return the prefixes of modules that have weights of a group, and of their parents."""
        prefixes = []
        for weight, slots in self.slots.items():
            match = self.matcher.of(weight) if any(name == group for name, _ in slots) else None
            if match is not None and "." in match.entry:
                owner = match.entry.rpartition(".")[0]
                prefixes += [f"{owner}.", f"{owner.rpartition('.')[0]}." if "." in owner else ""]
        return [each for each in dict.fromkeys(prefixes) if each]

    def _put(self, entry: str, array: Array) -> None:
        array = np.ascontiguousarray(array, self.matcher.state[entry].dtype)
        old = self.found.entries.setdefault(entry, array)
        if old is not array and not (
            old.shape == array.shape and np.allclose(old, array, 1e-5, 1e-7)
        ):
            raise InputError(
                f"the module cannot be cut: {entry!r} is used twice, and is cut differently in "
                "each place. Give each use a parameter of its own before elastify, or use the "
                "exported ONNX model"
            )


def _placed(array: Array, match: Match) -> Array:
    """Return a weight's new values with the axes of the entry that it comes from."""
    own = [axis for axis, source in enumerate(match.axes) if source >= 0]
    reduced = array.reshape([array.shape[axis] for axis in own])
    return reduced.transpose(np.argsort([match.axes[axis] for axis in own]))
