"""Tracing a network into an ONNX graph: a whole subnet, or one of its blocks."""

import io
import warnings

import onnx
import torch
from torch import nn

from hwsearch.supernets.base import InputSpec

OPSET = 17


def trace(network: nn.Module, spec: InputSpec) -> onnx.ModelProto:
    """Trace a network in eval mode, with its own names for its tensors and a dynamic batch."""
    sample = tuple(
        torch.zeros((2, *tensor.shape), dtype=getattr(torch, tensor.dtype))
        for tensor in spec.inputs
    )
    names = [tensor.name for tensor in spec.inputs]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated in favour of one that takes seconds a model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            sample,
            buffer,  # type: ignore[arg-type]  # takes files too
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=list(spec.outputs),
            dynamic_axes={name: {0: "batch"} for name in (*names, *spec.outputs)},
            # Neither folds nor renames: parameters keep the names that they have in the subnet.
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_from_string(buffer.getvalue())
