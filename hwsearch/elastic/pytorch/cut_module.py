"""Cutting of a PyTorch module to a subnet, compared with the subnet's ONNX model."""

import copy
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from hwsearch.elastic import build
from hwsearch.elastic.graph import Structure
from hwsearch.elastic.pytorch.call import ModuleCall
from hwsearch.elastic.pytorch.copying import first_line, plain_copy
from hwsearch.elastic.pytorch.cut_branches import leave_out
from hwsearch.elastic.pytorch.cut_layers import apply, cut_heads
from hwsearch.elastic.pytorch.cut_weights import changes_of
from hwsearch.elastic.pytorch.match import Matcher
from hwsearch.errors import InputError
from hwsearch.models.agreement import disagreement
from hwsearch.models.execution import run

TOLERANCE = 1e-5
_SAMPLES = 2


def cut_module(
    module: nn.Module,
    structure: Structure,
    kept: Mapping[str, NDArray[np.bool_]],
    dropped: Collection[str],
    model: onnx.ModelProto,
    inputs: Any = None,
) -> nn.Module:
    """Cut a module to a subnet.

    Args:
        module: The module; its weights are those of the structure.
        structure: Of the whole model.
        kept: Group -> its kept units, (size,) bool.
        dropped: Branches and layers that are left out.
        model: The subnet, as of `hwsearch.elastic.build.sliced`.
        inputs: See `cut`.

    Raises:
        InputError: See `cut`.
    """
    plain = plain_copy(module)
    subject = _Subject(plain, structure, inputs)
    matcher = Matcher(structure.graph, plain)
    subject.check_whole(plain)
    order = [layer.name for layer in structure.layers if layer.name in dropped]
    order += [branch.name for branch in structure.branches if branch.name in dropped]
    leave_out(plain, structure, matcher, order, subject.run, subject.agrees_without)
    changes = changes_of(structure, plain, kept, model)
    problem = ""
    for with_widths in (True, False):
        trial = copy.deepcopy(plain)
        cut_heads(trial, structure, matcher, kept, with_widths=with_widths)
        apply(trial, changes)
        found = subject.compared(trial, model)
        if not found:
            return trial.eval()
        problem = problem or found
    culprit = _first_that_differs(plain, structure, matcher, kept, subject)
    raise InputError(
        f"the module cannot be cut: {problem}{culprit}. Its code may depend on a number of "
        "channels or heads; freeze the choice, or use the exported ONNX model"
    )


class _Subject:
    """The module that is cut, with inputs to compare it with ONNX models on."""

    def __init__(self, module: nn.Module, structure: Structure, inputs: Any) -> None:
        self.structure = structure
        graph = structure.graph.proto.graph
        self.results = [value.name for value in graph.output]
        shapes = {each.name: structure.graph.shapes[each.name] for each in graph.input}
        kinds = {each.name: each.type.tensor_type.elem_type for each in graph.input}
        arrays = {name: _drawn(name, shape, kinds[name]) for name, shape in shapes.items()}
        if inputs is None:
            inputs = _as_arguments(module, arrays)
        self.call = ModuleCall(module, inputs)
        if len(self.call.inputs) != len(arrays) or len(self.call.outputs) != len(self.results):
            raise InputError(
                f"module {type(module).__name__} has {len(self.call.inputs)} inputs and "
                f"{len(self.call.outputs)} outputs, the elastic model {len(arrays)} and "
                f"{len(self.results)}; give the module that was exported, and inputs= as it takes "
                "them"
            )
        self.tensors = self.call.examples(_SAMPLES)
        ordered = list(self.tensors)
        same = set(ordered) == set(arrays)
        self.arrays = {
            name: self.tensors[name if same else ordered[position]].numpy()
            for position, name in enumerate(arrays)
        }

    def run(self, module: nn.Module) -> None:
        """Run a module on the example inputs."""
        self.call(module, self.tensors)

    def compared(self, module: nn.Module, model: onnx.ModelProto) -> str:
        """Return what is wrong with a module's outputs, or an empty text if they are the model's.

        The module computes in double precision where it can: one side's rounding is enough.
        """
        try:
            ours = self._outputs(module)
        except Exception as error:  # noqa: BLE001 - the module is the user's
            return f"forward fails ({type(error).__name__}: {first_line(error)})"
        found = run(model, self.arrays, self.results)
        difference = disagreement(ours, [found[name] for name in self.results])
        if difference <= TOLERANCE:
            return ""
        return f"its outputs differ from those of the ONNX model by {difference:.1e}"

    def agrees_without(self, module: nn.Module, dropped: list[str]) -> bool:
        """Return whether a module has the outputs of the whole model without branches."""
        return not self.compared(module, build.sliced(self.structure, {}, dropped))

    def check_whole(self, module: nn.Module) -> None:
        """Raise InputError unless the module has the outputs of the whole model."""
        problem = self.compared(module, build.sliced(self.structure, {}))
        if problem:
            raise InputError(
                f"the module is not the one that the elastic model was made of: {problem}. Give "
                "the same module with the same weights, and inputs= as it takes them"
            )

    def _outputs(self, module: nn.Module) -> list[NDArray[Any]]:
        doubles = {n: t.double() if t.is_floating_point() else t for n, t in self.tensors.items()}
        try:
            results = self.call(module.double(), doubles)
        except Exception:  # noqa: BLE001 - code with types of its own; it runs in float32
            results = self.call(module.float(), self.tensors)
        finally:
            module.float()
        return [tensor.float().numpy() for tensor in results.values()]


def _first_that_differs(
    module: nn.Module,
    structure: Structure,
    matcher: Matcher,
    kept: Mapping[str, NDArray[np.bool_]],
    subject: _Subject,
) -> str:
    """Return which group alone cannot be cut, as the end of a sentence; empty if each can."""
    for name, units in kept.items():
        own = {name: units}
        model = build.sliced(structure, own)
        whole = copy.deepcopy(module)
        try:
            cut_heads(whole, structure, matcher, own, with_widths=True)
            apply(whole, changes_of(structure, whole, own, model))
        except InputError:
            return f", because of {name!r}"
        if subject.compared(whole, model):
            return f", because of {name!r}"
    return ""


def _as_arguments(module: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Return arrays as arguments of forward: by name where all names are, else in order."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        names = set(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        names = set()
    return tensors if names >= set(tensors) else tuple(tensors.values())


def _drawn(name: str, shape: tuple[int, ...], kind: int) -> NDArray[Any]:
    """Draw a sample of an input: standard normal, or integers that are 0 or 1; masks are 1."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if "mask" in name:
        return np.ones(shape, dtype)
    return np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
