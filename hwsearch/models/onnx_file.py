"""ONNX models: reading and writing, metadata, precision, shapes, tensors and external data."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import onnx
from onnx import TensorProto, helper

from hwsearch.errors import EvaluationError, unknown
from hwsearch.files import write_atomic
from hwsearch.quantization import MIXED, OPTIONS

if TYPE_CHECKING:
    from hwsearch.models.exported import Exported

PREFIX = "hwsearch."  # of metadata entries
PRECISIONS = (*OPTIONS, MIXED)  # of files
QUANTIZED = frozenset(
    (
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
        "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    )
)  # fmt: skip
_SMALL_BYTES = 1024  # shapes follow from the numbers of tensors up to this size
FileIdentity = tuple[str, int, int]  # absolute path, time of the last change in ns, bytes
# Files of models in memory. Messages of protobuf take no weak reference; their owner does.
_written: "WeakValueDictionary[FileIdentity, Exported]" = WeakValueDictionary()


def file_identity(path: Path) -> FileIdentity:
    """Return what changes when a file is written again."""
    found = path.stat()
    return str(path.absolute()), found.st_mtime_ns, found.st_size


def read_model(path: Path) -> onnx.ModelProto:
    """Return the model of a file without its external data; it is shared, so do not change it.

    The last two files are kept, and those of `write_model` whose models are still in memory.
    """
    identity = file_identity(path)
    written = _written.get(identity)
    return _parsed(identity) if written is None else written.model


@lru_cache(maxsize=2)
def _parsed(identity: FileIdentity) -> onnx.ModelProto:
    return onnx.load(identity[0], load_external_data=False)


def write_model(path: Path, model: onnx.ModelProto, exported: "Exported | None" = None) -> int:
    """Write a model; return its bytes. ``exported`` keeps it known to `read_model`."""
    content = model.SerializeToString(deterministic=True)
    write_atomic(path, content)
    if exported is not None:
        _written[file_identity(path)] = exported
    return len(content)


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata that an export wrote, without the prefix."""
    return {
        prop.key.removeprefix(PREFIX): prop.value
        for prop in model.metadata_props
        if prop.key.startswith(PREFIX)
    }


def write_metadata(model: onnx.ModelProto, stated: Mapping[str, str]) -> None:
    """Replace the metadata of a model by entries that are given without the prefix."""
    helper.set_model_props(model, {f"{PREFIX}{name}": value for name, value in stated.items()})


def precision_of(model: onnx.ModelProto) -> str:
    """Return the precision of a model: one of `PRECISIONS`.

    Without the metadata entry ``hwsearch.precision`` a model is int8 if it quantises, fp16 if it
    has weights of that type, else fp32.

    Raises:
        InputError: It states an unknown precision.
    """
    stated = read_metadata(model).get("precision")
    if stated is None:
        return _by_content(model)
    if stated not in PRECISIONS:
        raise unknown("precision", stated, PRECISIONS, "Export the model again with this version.")
    return stated


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set of a model."""
    return max(int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx"))


def check_opset(model: onnx.ModelProto, least: int, begins: str) -> None:
    """Raise EvaluationError for a model of an opset before what ``begins`` with ``least``."""
    if (opset := opset_of(model)) < least:
        raise EvaluationError(
            f"the model has opset {opset}, and {begins} with {least}; export it again, or take "
            "precision=fp32"
        )


def _by_content(model: onnx.ModelProto) -> str:
    if any(node.op_type in QUANTIZED for node in model.graph.node):
        return "int8"
    return "fp16" if TensorProto.FLOAT16 in {each.data_type for each in tensors(model)} else "fp32"


def emptied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without nodes, constants and the shapes of values between nodes."""
    made = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
        producer_name=model.producer_name,
        metadata_props=model.metadata_props,
    )
    made.graph.name = model.graph.name
    made.graph.input.extend(model.graph.input)
    made.graph.output.extend(model.graph.output)
    return made


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose weights are inputs, for shape inference: copying them takes long.

    Small tensors, such as the target of a Reshape, stay.
    """
    graph = onnx.GraphProto(node=model.graph.node, input=model.graph.input)
    graph.output.extend(model.graph.output)
    graph.name = model.graph.name
    given = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            shape = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(shape)
    ir_version = max(model.ir_version, 4)  # before, every initialiser is an input
    return onnx.ModelProto(ir_version=ir_version, opset_import=model.opset_import, graph=graph)


def inferred_values(
    model: onnx.ModelProto, batch: int, *, strict: bool = False
) -> list[onnx.ValueInfoProto]:
    """Return the inputs, outputs and values between nodes, with what is known of their shapes.

    ``batch`` is the first axis of all inputs. A contradiction raises InferenceError if ``strict``.
    """
    stripped = without_weights(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in (*stripped.graph.input, *stripped.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and len(dims):
            dims[0].dim_value = batch
    inferred = onnx.shape_inference.infer_shapes(stripped, strict_mode=strict, data_prop=True)
    return [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]


def static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return the shape of a value, or None where an axis is not known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(d.HasField("dim_value") for d in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every initialiser and constant, those of subgraphs and functions included."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        nodes += graph.node
        while nodes:
            for attribute in nodes.pop().attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                graphs += (g for g in (attribute.g, *attribute.graphs) if g.node)


def external_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors of a model that are stored in another file."""
    return (tensor for tensor in tensors(model) if tensor.data_location)


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
