"""Export of a subnet as a float32 ONNX model, with its metadata."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import onnx
from numpy.typing import NDArray

from hwsearch.models.onnx_file import write_metadata
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

if TYPE_CHECKING:
    from torch import nn

SLICED: Final = "sliced from the given model"  # how the graph of an elastic model's subnet is made


def to_onnx(
    net: Supernet,
    arch: Architecture,
    subnet: "nn.Module | None" = None,
    *,
    calibration: str | None = None,
) -> onnx.ModelProto:
    """Export the subnet of an architecture.

    The same architecture, weights and statistics give the same bytes.

    Args:
        net: The supernet that the architecture belongs to.
        arch: The architecture.
        subnet: Its recalibrated network; None takes ``net.subnet(arch)`` with the batch
            statistics of the checkpoint, if any. Subnets of an elastic model are no modules.
        calibration: Digest of the samples that the statistics come from, for the metadata.

    Returns:
        A model with a dynamic batch, named inputs and outputs, batch norms folded into the
        convolutions before them, and the architecture and preprocessing as metadata. It is
        assembled from cached graphs of the blocks; a subnet that is no chain is traced as a
        whole, and one of an elastic model is sliced from the given model: the metadata entry
        ``hwsearch.graph`` says which. Norms that cannot be folded stay;
        ``hwsearch.unfolded_norms`` counts them.
    """
    model, saved, made = net.onnx_model(arch), 0, SLICED
    if model is None:
        # It loads PyTorch, which elastic models are searched without.
        from hwsearch.models.assemble import module_model

        model, saved, made = module_model(net, arch, subnet)
    return described(model, net, arch, made=made, saved=saved, calibration=calibration)


def refined_to_onnx(
    net: Supernet, arch: Architecture, batches: Iterable[Mapping[str, NDArray[Any]]]
) -> onnx.ModelProto:
    """Export a subnet with weights refined on samples, inputs by name, in the same graph."""
    return described(net.refined_model(arch, batches), net, arch, made=SLICED)


def described(
    model: onnx.ModelProto,
    net: Supernet,
    arch: Architecture,
    *,
    made: str,
    saved: int = 0,
    calibration: str | None = None,
) -> onnx.ModelProto:
    """Write the name and the metadata of an architecture's model in place, and return it.

    ``made`` says how the graph was made, ``saved`` is the reduction of the number of learned
    parameters by folding of norms.
    """
    model.graph.name = f"{net.card.name}-{arch.key}"
    model.producer_name = "hwsearch"
    model.ClearField("producer_version")
    n_norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    stated = {
        "supernet": net.card.name,
        "checkpoint": net.digest,
        "calibration": calibration or "none",
        "architecture": json.dumps(arch.mapping, sort_keys=True),
        "key": arch.key,
        "input": _input_text(net.input_spec(arch)),
        "params_folded": str(saved),
        "graph": made,
        "precision": "fp32",
        "unfolded_norms": str(n_norms),
    }
    write_metadata(model, stated)
    return model


@lru_cache(maxsize=256)
def _input_text(spec: InputSpec) -> str:
    return json.dumps(spec.to_dict(), sort_keys=True)
