"""Export of a subnet as a float32 ONNX model: graph, folded batch norms, metadata."""

import json
from functools import cache, lru_cache

import onnx
import onnx_ir as ir
from onnx.helper import set_model_props
from torch import nn

from hwsearch.models.assemble import NotAChainError, assemble, tensors_of
from hwsearch.models.batch_norm_folding import drop_identities, fold_batch_norms, norms_of
from hwsearch.models.onnx_file import PREFIX
from hwsearch.models.trace import trace
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet


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
        subnet: Its recalibrated network; None takes ``net.subnet(arch)`` with the batch
            statistics of the checkpoint, if any.
        calibration: Digest of the samples that the statistics come from, for the metadata.

    Returns:
        A model with a dynamic batch, named inputs and outputs, batch norms folded into the
        convolutions before them, and the architecture and preprocessing as metadata. It is
        assembled from cached graphs of the blocks; a subnet that is no chain is traced as a
        whole, which the metadata entry ``hwsearch.graph`` says. Norms that cannot be folded
        stay; ``hwsearch.unfolded_norms`` counts them.
    """
    spec = net.input_spec(arch)
    model, saved, made = _graph(net, arch, subnet, spec)
    n_norms = 0
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        whole = ir.from_proto(model)
        saved += fold_batch_norms(whole.graph)
        n_norms = len(norms_of(whole.graph))
        model = ir.to_proto(whole)
    model.graph.name = f"{net.card.name}-{arch.key}"
    model.producer_name = "hwsearch"
    model.ClearField("producer_version")
    stated = {
        "supernet": net.card.name,
        "checkpoint": net.digest,
        "calibration": calibration or "none",
        "architecture": json.dumps(arch.mapping, sort_keys=True),
        "key": arch.key,
        "input": _input_text(spec),
        "params_folded": str(saved),
        "graph": made,
        "precision": "fp32",
        "unfolded_norms": str(n_norms),
    }
    set_model_props(model, {f"{PREFIX}{name}": value for name, value in stated.items()})
    return model


@lru_cache(maxsize=256)
def _input_text(spec: InputSpec) -> str:
    return json.dumps(spec.to_dict(), sort_keys=True)


def _graph(
    net: Supernet, arch: Architecture, subnet: nn.Module | None, spec: InputSpec
) -> tuple[onnx.ModelProto, int, str]:
    """Assemble or trace the graph; return it, the reduction of parameters, and the method."""

    @cache
    def network() -> nn.Module:
        return net.subnet(arch) if subnet is None else subnet.eval()

    tensors = net.tensors(arch) if subnet is None else None
    try:
        model, saved = assemble(
            net.network,
            net.blocks(arch),
            tensors if tensors is not None else dict(tensors_of(network())),
            lambda name: network().get_submodule(name),
            spec,
        )
    except NotAChainError as reason:
        traced = ir.from_proto(trace(network(), spec))
        drop_identities(traced.graph)
        return ir.to_proto(traced), 0, f"traced as a whole: {reason}"
    return model, saved, "assembled from blocks"
