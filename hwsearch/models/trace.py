"""Tracing of a subnet or a block into an ONNX graph with a dynamic batch."""

import copy
import io
import re
import warnings
from collections.abc import Mapping
from functools import wraps
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from hwsearch.errors import EvaluationError
from hwsearch.models.agreement import TOLERANCE, disagreement, probe_inputs
from hwsearch.models.module_outputs import declared_outputs, torch_outputs
from hwsearch.supernets.interface import InputSpec

OPSET = 17
# Operators on each sample separately; elementwise ones are so without constants.
PER_SAMPLE = frozenset(
    (
        "AveragePool", "BatchNormalization", "Clip", "Conv", "Flatten", "GlobalAveragePool",
        "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Relu", "Sigmoid", "Tanh",
    )
)  # fmt: skip
ELEMENTWISE = frozenset(("Add", "Mul", "Sub"))
TRACED, _TRIED = 2, 3  # samples in a batch


def trace(network: nn.Module, spec: InputSpec) -> onnx.ModelProto:
    """Trace a network in eval mode, keeping its tensor names, with a dynamic batch.

    Outputs are the declared ones, by name. The opset is `OPSET`, or the first one that has all
    operators of the network. Unless its operators show that the trace has not fixed the batch, the
    model is tried with a batch of another size than the traced one; reshapes fixed to the traced
    batch are made to keep the batch.

    Raises:
        EvaluationError: An operator has no counterpart in ONNX, or the trace has fixed the batch.
    """
    model = _exported(_with_declared_outputs(network.eval(), spec), spec, OPSET)
    if _is_per_sample(model.graph) or _agrees(model, network, spec, _TRIED):
        return model
    if not _agrees(model, network, spec, TRACED):  # the batch is not the reason
        return model
    repaired = onnx.ModelProto()
    repaired.CopyFrom(model)
    keep_batch(repaired)
    if all(_agrees(repaired, network, spec, samples) for samples in (_TRIED, TRACED)):
        return repaired
    fixed = "; ".join(fixed_nodes(model)[:3]) or "forward computes with the number of samples"
    raise EvaluationError(
        f"its ONNX model is right for batches of {TRACED} samples alone, as many as it was "
        f"traced with: {fixed}. Let forward turn no shape into a Python number: x.flatten(1), "
        "not x.view(int(n), -1)"
    )


def _with_declared_outputs(network: nn.Module, spec: InputSpec) -> nn.Module:
    """Return a shallow copy that returns the declared outputs as a tuple."""
    forward = network.forward
    if isinstance(network, torch.jit.ScriptModule):  # its forward cannot be replaced
        result = network(*map(torch.from_numpy, probe_inputs(spec.inputs).values()))
        declared_outputs(result, spec.outputs)
        if isinstance(result, Mapping) or hasattr(result, "_fields"):
            raise EvaluationError("a script module returns names; let it return a plain tuple")
        return network

    @wraps(forward)
    def declared(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(declared_outputs(forward(*args), spec.outputs).values())

    shared = copy.copy(network)
    shared.forward = declared
    return shared


def _exported(network: nn.Module, spec: InputSpec, opset: int) -> onnx.ModelProto:
    sample = tuple(
        torch.zeros((TRACED, *tensor.shape), dtype=getattr(torch, tensor.dtype))
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


def _is_per_sample(graph: onnx.GraphProto) -> bool:
    """Return whether every operator works on each sample separately, so that any batch fits."""
    constants = {tensor.name for tensor in graph.initializer}

    def fits(node: onnx.NodeProto) -> bool:
        computed = [name not in constants for name in node.input]
        if node.op_type in ELEMENTWISE:  # a constant may be the number of samples
            return all(computed)
        if node.op_type == "Gemm":
            transposed = any(each.name == "transA" and each.i for each in node.attribute)
            return not transposed and computed == [True, *[False] * (len(computed) - 1)]
        return node.op_type in PER_SAMPLE

    return all(map(fits, graph.node))


def _agrees(model: onnx.ModelProto, network: nn.Module, spec: InputSpec, samples: int) -> bool:
    """Return whether a model agrees with its network for a batch of a size."""
    inputs = probe_inputs(spec.inputs, samples=samples)
    expected = torch_outputs(network, inputs, spec.outputs)
    try:
        found = _run(model, inputs)
    except Exception:  # noqa: BLE001 - ONNX Runtime raises classes of its own
        return False
    if not all(np.isfinite(each).all() for each in expected):
        return [a.shape for a in found] == [b.shape for b in expected]
    return disagreement(found, expected) <= TOLERANCE


def _run(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def _fixed_shapes(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return name -> every constant list of integers that begins with the traced batch size."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    integers = {name: t for name, t in found.items() if t.data_type == onnx.TensorProto.INT64}
    shapes = {name: numpy_helper.to_array(tensor) for name, tensor in integers.items()}
    return {n: found[n] for n, s in shapes.items() if s.ndim == 1 and s[:1].tolist() == [TRACED]}


def fixed_nodes(model: onnx.ModelProto) -> list[str]:
    """Describe the nodes whose shape begins with the traced batch size."""
    fixed = _fixed_shapes(model)
    shapes = {name: numpy_helper.to_array(tensor).tolist() for name, tensor in fixed.items()}
    return [
        f"node {node.name!r} takes the shape {shapes[name]}"
        for node in model.graph.node
        for name in node.input
        if len(shapes.get(name, ())) > 1
    ]


def keep_batch(model: onnx.ModelProto) -> None:
    """Make reshapes whose shape begins with the traced batch copy their input's first axis."""
    fixed = _fixed_shapes(model)
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in fixed:
            tensor = fixed[node.input[1]]
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
