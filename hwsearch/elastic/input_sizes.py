"""Input sizes other than the model's own that its graph takes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic import wire
from hwsearch.elastic.build import Slicer
from hwsearch.elastic.graph import Structure
from hwsearch.models.agreement import PRODUCTS, product_macs

_LARGE, _LARGE_STEP, _STEPS = 128, 32, 8  # pixels; a small image is cut in eighths
Run = Callable[
    [onnx.ModelProto, Mapping[str, NDArray[Any]], list[str]], Mapping[str, NDArray[Any]]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """A size of the model's inputs.

    Attributes:
        option: Height and width of the image, in pixels.
        shapes: Input -> shape for one sample; empty for the model's own size.
        macs: Node -> its MACs in the whole model at this size.
    """

    option: int
    shapes: Mapping[str, tuple[int, ...]]
    macs: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return {"option": self.option, "shapes": shapes, "macs": dict(self.macs)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "InputSize":
        """Return the size that `to_dict` described."""
        return cls(
            option=int(content["option"]),
            shapes={name: tuple(map(int, shape)) for name, shape in content["shapes"].items()},
            macs={name: int(macs) for name, macs in content["macs"].items()},
        )


def image_sizes(structure: Structure, run: Run) -> list[InputSize]:
    """Return smaller square image sizes that a model of one image takes, and its own, ascending.

    At another size every node must work and every output keep its shape. The list is empty for
    other models.

    Args:
        structure: Its graph, with the shapes at its own size.
        run: Runs a model on inputs and returns outputs by name; may raise any error.
    """
    graph = structure.graph
    inputs = graph.proto.graph.input
    shape = graph.shapes.get(inputs[0].name, ()) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[2] != shape[3] or inputs[0].type.tensor_type.elem_type != _FLOAT:
        return []
    name, side = inputs[0].name, shape[2]
    step = _LARGE_STEP if side >= _LARGE else max(4, side // _STEPS)
    slicer, found = Slicer(structure), []
    for smaller in range(step * math.ceil(side / 2 / step), side, step):
        shapes = {name: (*shape[:2], smaller, smaller)}
        macs = _macs_at(slicer, shapes, run)
        if macs is not None:
            found.append(InputSize(option=smaller, shapes=shapes, macs=macs))
    own = {work.node: work.macs for work in structure.work}
    return [*found, InputSize(option=side, shapes={}, macs=own)] if found else []


_FLOAT = onnx.TensorProto.FLOAT


def _macs_at(
    slicer: Slicer, shapes: Mapping[str, tuple[int, ...]], run: Run
) -> dict[str, int] | None:
    """Return node -> MACs at an input size; None if the model does not work at it."""
    graph = slicer.structure.graph
    model = wire.parsed(slicer.serialised({}, shapes=shapes))
    worked = {work.node for work in slicer.structure.work}
    nodes = [node for node in graph.proto.graph.node if node.name in worked]
    wanted = {node.output[0] for node in nodes} | {v for n in nodes for v in n.input if v}
    wanted = {name for name in wanted if name not in graph.weights and name not in shapes}
    outputs = [output.name for output in graph.proto.graph.output]
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    try:
        values = run(model, zeros, [*outputs, *sorted(wanted - set(outputs))])
    except Exception:  # noqa: BLE001 - a runtime may raise any: it takes no such size
        return None
    found = {name: tuple(value.shape) for name, value in values.items()} | dict(shapes)
    if any(found[name] != graph.shapes[name] for name in outputs):
        return None
    known = found | {name: array.shape for name, array in graph.weights.items()}
    return {
        node.name: product_macs(node, *(known[name] for name in (*node.input[:2], node.output[0])))
        for node in nodes
        if node.op_type in PRODUCTS
    }
