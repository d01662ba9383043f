"""PyTorch modules as ONNX models whose weights have the names of the state dict."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from hwsearch.elastic.graph import Graph
from hwsearch.elastic.pytorch.axes import Axis, flexible_axes, name_axes
from hwsearch.elastic.pytorch.call import ModuleCall
from hwsearch.elastic.pytorch.copying import first_line, plain_copy, unmerged
from hwsearch.elastic.pytorch.tracing import Exporter, exported, has_dynamo, plain_forward
from hwsearch.elastic.reading import read_graph
from hwsearch.errors import InputError
from hwsearch.models.agreement import TOLERANCE, disagreement
from hwsearch.models.execution import run
from hwsearch.models.trace import TRACED, fixed_nodes, keep_batch

logger = logging.getLogger(__name__)
_TRIED = 3  # samples in a batch, other than the traced number
_MAX_BYTES = 2_000_000_000  # of one ONNX model in memory


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModuleExport:
    """A PyTorch module as an ONNX model.

    Attributes:
        module: What was exported: a copy in eval mode, in float32, on the CPU, and without
            parametrisations.
        call: Its inputs and outputs by name.
        model: The ONNX model. Its batch is dynamic, and so are further axes of the inputs where
            module and model take other sizes. An initialiser has the name of an entry of the
            state dict exactly if it has its shape and values.
    """

    module: nn.Module
    call: ModuleCall
    model: onnx.ModelProto

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input for one sample, the batch (1) included."""
        inputs = self.call.inputs
        return {each.name: (1, *inputs[each.name].shape[1:]) for each in self.model.graph.input}


def read_module(module: nn.Module, inputs: Any) -> Graph:
    """Return the graph of a PyTorch module; its weights come from entries of the state dict.

    Args:
        module: The module, in any mode and on any device; it is not changed.
        inputs: Example inputs: a tensor, a tuple of positional arguments, or a dict of keyword
            arguments. The first axis of each tensor is the batch.

    Raises:
        InputError: It cannot be exported, or its graph cannot be made elastic.
    """
    found = export_module(module, inputs)
    return read_graph(found.model, found.shapes)


def export_module(
    module: nn.Module, inputs: Any, exporter: Exporter | None = None
) -> ModuleExport:
    """Export a PyTorch module to ONNX, and compare the model's outputs with the module's.

    Args:
        module: See `read_module`.
        inputs: See `read_module`.
        exporter: ``torchscript`` traces the module, ``dynamo`` captures it by `torch.export` and
            needs the package ``onnxscript``. By default the second one is tried after the first.

    Raises:
        InputError: The module cannot be exported, or the model's outputs differ from its own.
    """
    plain = plain_copy(module)
    what = f"module {type(plain).__name__}"
    n_bytes = sum(tensor.nbytes for tensor in plain.state_dict().values())
    if n_bytes > _MAX_BYTES:
        raise InputError(
            f"{what} has {n_bytes / 1e9:.1f} GB of weights; an ONNX model in memory holds up to "
            f"{_MAX_BYTES / 1e9:.0f} GB"
        )
    merging = unmerged(plain)
    if merging:
        logger.warning(
            "%d layers of %s, such as %r, have parallel branches that can be merged into one "
            "convolution; merge them first (timm.utils.reparameterize_model, or its own method): "
            "it is then faster, and its widths are elastic one by one", len(merging), what,
            merging[0],
        )  # fmt: skip
    written_out = getattr(plain, "set_attn_implementation", None)  # of the package transformers
    if callable(written_out):
        written_out("eager")
    with plain_forward():
        call = ModuleCall(plain, inputs)
        _check_batch(plain, call)
        model = _first_that_agrees(plain, call, exporter)
    return ModuleExport(module=plain, call=call, model=model)


def _check_batch(module: nn.Module, call: ModuleCall) -> None:
    """Raise InputError unless a module takes other numbers of samples than the example has."""
    try:
        call(module, call.examples(_TRIED))
    except Exception as error:
        # The module is the user's, and took the example inputs.
        raise InputError(
            f"module {type(module).__name__} does not take {_TRIED} samples at once: "
            f"{type(error).__name__}: {first_line(error)}. Let forward take the number of "
            "samples from its inputs"
        ) from error


def _first_that_agrees(
    module: nn.Module, call: ModuleCall, exporter: Exporter | None
) -> onnx.ModelProto:
    """Return the model of the first exporter whose model agrees with the module."""
    axes = flexible_axes(module, call)
    traced = tuple(axis for axis in axes if axis.is_sequence)
    attempts: list[tuple[Exporter, tuple[Axis, ...]]] = [("torchscript", traced)]
    if traced:
        attempts.append(("torchscript", ()))
    if has_dynamo():
        attempts += [("dynamo", dynamic) for dynamic in dict.fromkeys((traced, ()))]
    if exporter is not None:
        attempts = [each for each in attempts if each[0] == exporter]
    if not attempts:
        raise InputError("exporter 'dynamo' needs the package onnxscript: pip install onnxscript")
    first: InputError | None = None
    for name, dynamic in attempts:
        try:
            model = exported(module, call, name, dynamic)
            _check_agreement(model, module, call, dynamic)
        except InputError as error:
            logger.info("exporter %s: %s", name, error)
            first = first or error
            continue
        others = [axis for axis in axes if axis not in dynamic]
        found = [*dynamic, *_accepted(model, module, call, others)]
        name_axes(model, call, module, found)
        return model
    assert first is not None
    raise first


def _check_agreement(
    model: onnx.ModelProto, module: nn.Module, call: ModuleCall, dynamic: tuple[Axis, ...]
) -> None:
    """Compare model and module for other batches than the traced one; repair fixed reshapes.

    Raises:
        InputError: They differ.
    """
    what = f"module {type(module).__name__}"
    sizes = {place: axis.tried for axis in dynamic for place in axis.places}
    if _difference(model, module, call, _TRIED, sizes) <= TOLERANCE:
        return
    if _difference(model, module, call, TRACED) > TOLERANCE:
        raise InputError(
            f"the ONNX model of {what} gives other outputs than the module for the example "
            "inputs; does forward draw random numbers, or keep state between calls? Remove that, "
            "or give an ONNX model"
        )
    fixed = fixed_nodes(model)
    keep_batch(model)
    if _difference(model, module, call, _TRIED, sizes) > TOLERANCE:
        raise InputError(
            f"the ONNX model of {what} is right for the traced sizes alone: "
            f"{'; '.join(fixed[:3]) or 'forward computes with sizes as Python numbers'}. Let "
            "forward turn no shape into a Python number: x.flatten(1), not x.view(int(n), -1)"
        )


def _accepted(
    model: onnx.ModelProto, module: nn.Module, call: ModuleCall, axes: Sequence[Axis]
) -> list[Axis]:
    """Return the axes for which a model that was traced with one size is right for another.

    A graph that computes with sizes stays as it is traced: with fixed sizes these are constants.
    """
    if not axes or any(
        not _is_of_batch(model, n) for n in model.graph.node if n.op_type == "Shape"
    ):
        return []
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    dims = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    found = []
    for axis in axes:
        for input_, position in axis.places if axis.places[0][0] in dims else ():
            dims[input_][position].dim_param = axis.name
        sizes = dict.fromkeys(axis.places, axis.tried)
        if _difference(model, module, call, 1, sizes) <= TOLERANCE:
            found.append(axis)
            continue
        for input_, position in axis.places if axis.places[0][0] in dims else ():
            dims[input_][position].dim_value = call.inputs[input_].shape[position]
    return found


def _is_of_batch(model: onnx.ModelProto, shape: onnx.NodeProto) -> bool:
    """Return whether all that is read of a shape is its first entry, the number of samples."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    readers = [node for node in model.graph.node if shape.output[0] in node.input]
    return all(
        reader.op_type == "Gather"
        and reader.input[1] in constants
        and not numpy_helper.to_array(constants[reader.input[1]]).any()
        for reader in readers
    )


def _difference(
    model: onnx.ModelProto,
    module: nn.Module,
    call: ModuleCall,
    samples: int,
    sizes: Mapping[tuple[str, int], int] | None = None,
) -> float:
    """Return the relative difference of the outputs of model and module; infinite if one fails."""
    tensors = call.examples(samples, sizes)
    expected = [tensor.numpy() for tensor in call(module, tensors).values()]
    arrays = {each.name: tensors[each.name].numpy() for each in model.graph.input}
    try:
        found = run(model, arrays, call.outputs)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises classes of its own
        logger.info("the exported model does not run: %s", first_line(error))
        return float("inf")
    ours: list[NDArray[Any]] = [found[name] for name in call.outputs]
    if not all(np.isfinite(each).all() for each in expected):
        raise InputError(
            f"module {type(module).__name__} gives outputs that are not finite for the example "
            "inputs; give others"
        )
    return disagreement(ours, expected)
