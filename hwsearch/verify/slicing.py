"""Verification of the slicing of a subnet, against the trained model that it was sliced from."""

from collections.abc import Mapping
from typing import Any, Final

import onnx
from numpy.typing import NDArray

from hwsearch.devices.base import Device
from hwsearch.errors import VerificationError
from hwsearch.models.agreement import disagreement
from hwsearch.models.artifact import MODEL
from hwsearch.models.exported import ExportedSlice
from hwsearch.verify.running import on_cpu, run_model

SLICING_TOLERANCE: Final = 1e-5  # between a subnet before repair, and the given model with zeros
SLICING_SAMPLES: Final = 16  # on which these two are compared, in one batch


def verify_slicing(
    exported: ExportedSlice, samples: Mapping[str, NDArray[Any]], device: Device
) -> dict[str, float]:
    """Return the difference of a slice before repair and of the given model with zeros.

    Refuse a large one, and a shipped model that is not the same graph with other weights.
    """
    models = exported.net.reference_models(exported.arch)
    if models is None:
        return {}
    if outline(exported.float32) != outline(models[0]):
        raise VerificationError(f"{MODEL} has another graph than its slice before repair")
    few = {name: array[:SLICING_SAMPLES] for name, array in samples.items()}
    with on_cpu(device) as runner:
        sliced, zeroed = (run_model(runner, model, few) for model in models)
    difference = disagreement(sliced, zeroed)
    if not difference <= SLICING_TOLERANCE:
        raise VerificationError(
            f"the slice before repair and the given model with zeros differ by {difference:.2g} "
            f"on real samples; {SLICING_TOLERANCE:g} is allowed"
        )
    return {"disagreement": difference, "tolerance": SLICING_TOLERANCE}


def outline(model: onnx.ModelProto) -> tuple[object, ...]:
    """Return the nodes of a model, and the shapes of its initialisers by name."""
    nodes = [(n.op_type, *n.input, "->", *n.output) for n in model.graph.node]
    shapes = {each.name: (each.data_type, *each.dims) for each in model.graph.initializer}
    return nodes, shapes
