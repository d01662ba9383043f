"""Tracing of a subnet or a block into an ONNX graph with a dynamic batch."""

import copy
import io
import re
import warnings
from functools import wraps
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from hwsearch.errors import EvaluationError
from hwsearch.models.agreement import (
    TOLERANCE,
    declared_outputs,
    disagreement,
    probe_inputs,
    torch_outputs,
)
from hwsearch.supernets.interface import InputSpec

OPSET = 17
# Operators on each sample separately: their traces never fix the batch size.
ANY_BATCH = frozenset(
    (
        "AveragePool", "BatchNormalization", "Clip", "Conv", "Flatten", "GlobalAveragePool",
        "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Relu", "Sigmoid", "Tanh",
    )
)  # fmt: skip
_TRACED, _TRIED = 2, 3  # samples in a batch
Arrays = list[NDArray[Any]]


def trace(network: nn.Module, spec: InputSpec) -> onnx.ModelProto:
    """Trace a network in eval mode, keeping its tensor names, with a dynamic batch.

    Outputs are the declared ones, by name. The opset is `OPSET`, or the first one that has all
    operators of the network. The model is tried with a batch of another size than the traced one;
    reshapes fixed to the traced batch are made to keep the batch.

    Raises:
        EvaluationError: An operator has no counterpart in ONNX, or the trace has fixed the batch.
    """
    model = _exported(_with_declared_outputs(network.eval(), spec), spec, OPSET)
    if all(node.op_type in ANY_BATCH for node in model.graph.node):
        return model
    # Where it differs for the traced batch too, the batch is not the reason.
    if _agreement(model, network, spec) != [True, False]:
        return model
    repaired = onnx.ModelProto()
    repaired.CopyFrom(model)
    _keep_batch(repaired)
    if all(_agreement(repaired, network, spec)):
        return repaired
    fixed = "; ".join(_fixed_nodes(model)[:3]) or "forward computes with the number of samples"
    raise EvaluationError(
        f"its ONNX model is right for batches of {_TRACED} samples alone, as many as it was "
        f"traced with: {fixed}. Let forward turn no shape into a Python number: x.flatten(1), "
        "not x.view(int(n), -1)"
    )


def _with_declared_outputs(network: nn.Module, spec: InputSpec) -> nn.Module:
    """Return the network, or a wrapper that returns the declared outputs as a tuple."""
    inputs = probe_inputs(spec.inputs)
    with torch.no_grad():
        result = network(*(torch.from_numpy(array) for array in inputs.values()))
    declared = tuple(declared_outputs(result, spec.outputs).values())
    listed = result if isinstance(result, tuple | list) else (result,)
    if all(a is b for a, b in zip(listed, declared, strict=False)) and len(listed) == len(
        declared
    ):
        return network
    forward = network.forward

    @wraps(forward)
    def named(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(declared_outputs(forward(*args), spec.outputs).values())

    shared = copy.copy(network)
    shared.forward = named
    return shared


def _exported(network: nn.Module, spec: InputSpec, opset: int) -> onnx.ModelProto:
    sample = tuple(
        torch.zeros((_TRACED, *tensor.shape), dtype=getattr(torch, tensor.dtype))
        for tensor in spec.inputs
    )
    names = [tensor.name for tensor in spec.inputs]
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The tracing exporter is deprecated, but its successor takes seconds per model.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                sample,
                buffer,  # type: ignore[arg-type]  # takes files too
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=list(spec.outputs),
                dynamic_axes={name: {0: "batch"} for name in (*names, *spec.outputs)},
                # Neither folds nor renames: parameters keep their names in the subnet.
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
    except torch.onnx.errors.UnsupportedOperatorError as error:
        needed = re.search(r"added in version (\d+)", str(error))
        if needed and int(needed[1]) > opset:
            return _exported(network, spec, int(needed[1]))
        operator = re.search(r"operator '([^']+)'", str(error))
        raise EvaluationError(
            f"operator {operator[1] if operator else 'unknown'!r} has no counterpart in ONNX; "
            "replace it by others in forward"
        ) from error
    return onnx.load_from_string(buffer.getvalue())


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set of a model."""
    return max(int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _agreement(model: onnx.ModelProto, network: nn.Module, spec: InputSpec) -> list[bool]:
    """Return whether a model agrees with its network, for the traced batch size and another."""
    return [_agrees(model, network, spec, samples) for samples in (_TRACED, _TRIED)]


def _agrees(model: onnx.ModelProto, network: nn.Module, spec: InputSpec, samples: int) -> bool:
    inputs = probe_inputs(spec.inputs, samples=samples)
    expected = torch_outputs(network, inputs, spec.outputs)
    try:
        found = _run(model, inputs)
    except Exception:  # noqa: BLE001 - ONNX Runtime raises classes of its own
        return False
    if not all(np.isfinite(each).all() for each in expected):
        return [a.shape for a in found] == [b.shape for b in expected]
    return disagreement(found, expected) <= TOLERANCE


def _run(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> Arrays:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def _shape_constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return name -> integers of every constant that may be a shape."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return {name: t for name, t in found.items() if t.data_type == onnx.TensorProto.INT64}


def _fixed_nodes(model: onnx.ModelProto) -> list[str]:
    """Describe the nodes whose shape begins with the traced batch size."""
    fixed = {}
    for name, tensor in _shape_constants(model).items():
        shape = np.atleast_1d(numpy_helper.to_array(tensor)).tolist()
        if len(shape) > 1 and shape[0] == _TRACED:
            fixed[name] = shape
    return [
        f"node {node.name!r} takes the shape {fixed[name]}"
        for node in model.graph.node
        for name in node.input
        if name in fixed
    ]


def _keep_batch(model: onnx.ModelProto) -> None:
    """Make reshapes whose shape begins with the traced batch copy their input's first axis."""
    constants = _shape_constants(model)
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        tensor = constants[node.input[1]]
        shape = numpy_helper.to_array(tensor).copy()
        if shape.ndim == 1 and shape[:1].tolist() == [_TRACED]:
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
