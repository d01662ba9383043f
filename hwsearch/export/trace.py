"""A subnet's ONNX graph: traced with its own names, batch norm folded, metadata written."""

import io
import json
import warnings
from collections.abc import Mapping

import onnx
import onnx_ir as ir
import torch
from torch import nn

from hwsearch.export.fold import drop_identities, fold_batch_norms
from hwsearch.space import Architecture
from hwsearch.supernets.base import InputSpec, Supernet

OPSET = 17
PREFIX = "hwsearch."


def to_onnx(
    net: Supernet,
    arch: Architecture,
    subnet: nn.Module | None = None,
    *,
    calibration: str | None = None,
) -> onnx.ModelProto:
    """Export the subnet of an architecture.

    The same architecture, weights and statistics give the same bytes.

    Args:
        net: The supernet that the architecture belongs to.
        arch: The architecture.
        subnet: Its recalibrated network; None takes ``net.subnet(arch)`` as it is, whose batch
            statistics are those of the checkpoint, if any.
        calibration: Digest of the samples that the statistics come from, for the metadata.

    Returns:
        A model with a dynamic batch, named inputs and outputs, batch norm folded into the
        convolutions before it, and the architecture and preprocessing as metadata.
    """
    spec = net.input_spec(arch)
    model = ir.from_proto(_trace(subnet if subnet is not None else net.subnet(arch), spec))
    drop_identities(model.graph)
    folded = fold_batch_norms(model.graph)
    model.graph.name = f"{net.card.name}-{arch.key}"
    model.producer_name, model.producer_version = "hwsearch", None
    model.metadata_props.update(_metadata(net, arch, spec, calibration, folded))
    return ir.to_proto(model)


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return what `to_onnx` wrote into a model, without the prefix."""
    return {
        prop.key.removeprefix(PREFIX): prop.value
        for prop in model.metadata_props
        if prop.key.startswith(PREFIX)
    }


def _metadata(
    net: Supernet, arch: Architecture, spec: InputSpec, calibration: str | None, folded: int
) -> Mapping[str, str]:
    stated = {
        "supernet": net.card.name,
        "checkpoint": net.digest,
        "calibration": calibration or "none",
        "architecture": json.dumps(arch.mapping, sort_keys=True),
        "key": arch.key,
        "input": json.dumps(spec.to_dict(), sort_keys=True),
        "params_folded": str(folded),
    }
    return {f"{PREFIX}{name}": value for name, value in stated.items()}


def _trace(subnet: nn.Module, spec: InputSpec) -> onnx.ModelProto:
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
            subnet.eval(),
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
