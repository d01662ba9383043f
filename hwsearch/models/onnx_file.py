"""External data of ONNX models: tensors stored in other files."""

from collections.abc import Iterator
from pathlib import Path

import onnx


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a model that are stored in another file."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs:
        graph = graphs.pop()
        yield from (tensor for tensor in graph.initializer if tensor.data_location)
        nodes += graph.node
        while nodes:
            for attribute in nodes.pop().attribute:
                tensors = (attribute.t, *attribute.tensors)
                yield from (tensor for tensor in tensors if tensor.data_location)
                graphs += (g for g in (attribute.g, *attribute.graphs) if g.node)


def stray_data(model: onnx.ModelProto, folder: Path) -> str | None:
    """Return the path of external data outside the folder of the model's file, or None.

    The model must have been read without its external data.
    """
    home = folder.resolve()
    for tensor in external_tensors(model):
        entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location or "\0" in location:
            return location or "a file without a name"
        # A link inside the folder may lead out of it.
        if not (home / location).resolve().is_relative_to(home):
            return location
    return None
