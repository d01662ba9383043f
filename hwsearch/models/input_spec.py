"""Input spec of a plain ONNX model: shapes, preprocessing of images, and class names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from hwsearch.errors import InputError
from hwsearch.models.preprocessing import COLOURS, preprocessing_of, read_settings
from hwsearch.supernets.interface import InputSpec, TensorSpec

TokenRole = Literal["ids", "mask", "types", "positions"]
DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
# Of axes whose size a model leaves open, where neither the caller nor the data say it.
IMAGE_SIDE, LENGTH = 224, 128
MOST_CLASSES = 100_000
_ROLES: tuple[tuple[TokenRole, str], ...] = (
    ("mask", r"mask"),
    ("types", r"type|segment"),
    ("positions", r"position"),
    ("ids", r"(^|[_.\W])ids?([.:_]?\d+)?$|token|input_?word"),
)
_PASSED = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape")


_SCORES = re.compile(r"logit|score|prob|softmax|class|label|pred", re.IGNORECASE)
_VECTORS = re.compile(r"embed|hidden|feature|pool|vector|represent|encod", re.IGNORECASE)
_VALUES = re.compile(r"box|coord|landmark|key_?point|depth|anchor|regress|offset", re.IGNORECASE)


def holds_values(name: str) -> bool:
    """Return whether an output's name says that it holds places or other measures."""
    return bool(_VALUES.search(name))


def holds_scores(name: str) -> bool:
    """Return whether an output's name says that it holds scores of classes."""
    return bool(_SCORES.search(name)) and not holds_values(name)


def holds_vectors(name: str) -> bool:
    """Return whether an output's name says that it holds embeddings or features."""
    return bool(_VECTORS.search(name)) and not holds_scores(name) and not holds_values(name)


def token_role(name: str) -> TokenRole | None:
    """Return what an input of a text model holds, by its name; None where it tells nothing."""
    return next((role for role, found in _ROLES if re.search(found, name, re.IGNORECASE)), None)


def input_spec_of(
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
    preprocess: str = "",
    folder: Path | None = None,
) -> InputSpec:
    """Return the input spec of a plain model.

    An input of one image has `ImagePreprocessing`; see `hwsearch.models.preprocessing`. Classes
    are those of an (n, classes) output, named as in ``config.json`` beside the model, else by
    their indices.

    Args:
        model: Its first axis is the batch, fixed or not. Weights are not needed.
        shapes: Input -> shape without the batch, for axes that the model leaves open. Images
            are 224 pixels high and wide by default, text has 128 tokens.
        preprocess: As in `hwsearch.models.preprocessing.preprocessing_of`.
        folder: The model's.

    Raises:
        InputError: An input is of a kind or size that cannot be fed, or ``preprocess`` does not
            fit it.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in weights]
    if not values or not graph.output:
        raise InputError("the model has no inputs, or no outputs; give one that has both")
    shapes = shapes or {}
    if strange := sorted(shapes.keys() - {value.name for value in values}):
        raise InputError(
            f"a shape is given for {', '.join(strange)}, and the model's inputs are "
            f"{', '.join(value.name for value in values)}"
        )
    layout = _layout(graph, values[0], shapes.get(values[0].name))
    specs = tuple(_tensor(graph, value, layout, shapes.get(value.name)) for value in values)
    preprocessing = None
    if len(specs) == 1 and layout is not None:
        by_default = "0..255" if specs[0].dtype == "uint8" else ""
        preprocessing = preprocessing_of(
            preprocess or by_default, specs[0].shape, layout, None if by_default else folder
        )
    elif preprocess:
        raise InputError(
            f"preprocessing {preprocess!r} is of images, and the model's inputs are "
            f"{', '.join(f'{t.name} ({t.dtype} {t.shape})' for t in specs)}; leave it out"
        )
    return InputSpec(
        inputs=specs,
        outputs=tuple(value.name for value in graph.output),
        preprocessing=preprocessing,
        classes=_classes(graph, specs, folder),
    )


def open_inputs(model: onnx.ModelProto) -> dict[str, str | None]:
    """Return the inputs with open axes besides the batch -> their layout if they are images."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in weights]
    return {
        value.name: _layout(model.graph, value, None)
        for value in values
        if any(isinstance(size, str) for size in _dims(value)[1:])
    }


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return sizes of all axes, and the names of those that are open."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise InputError(
            f"input {value.name!r} is no tensor of known rank; such a model cannot be fed"
        )
    return [d.dim_value if d.dim_value > 0 else d.dim_param for d in tensor.shape.dim]


def _layout(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, given: Sequence[int] | None
) -> str | None:
    """Return the layout of an image input; None if it holds no images of 1, 3 or 4 channels."""
    dims, dtype = _dims(value), _dtype(value)
    if len(dims) != 4 or dtype not in ("float32", "float16", "float64", "uint8"):
        return None
    if given is not None and len(given) == 3:
        dims[1:] = [d if isinstance(d, int) else g for d, g in zip(dims[1:], given, strict=True)]
    first, last = dims[1], dims[3]
    turned = any(
        node.op_type == "Transpose" and list(_integers(node, "perm")) == [0, 3, 1, 2]
        for node in graph.node
        if value.name in node.input
    )
    if last in COLOURS and (turned or first not in COLOURS):
        return "NHWC"
    if turned and isinstance(last, str):
        return "NHWC"
    return "NCHW" if first in COLOURS or isinstance(first, str) else None


def _integers(node: onnx.NodeProto, name: str) -> Sequence[int]:
    return next((each.ints for each in node.attribute if each.name == name), ())


def _dtype(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    name = ""
    if kind in TensorProto.DataType.values() and kind != TensorProto.UNDEFINED:
        name = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
    if name not in DTYPES:
        stated = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else kind
        raise InputError(
            f"input {value.name!r} is of type {stated}; a model is fed {', '.join(DTYPES)}"
        )
    return name


def _tensor(
    graph: onnx.GraphProto,
    value: onnx.ValueInfoProto,
    layout: str | None,
    given: Sequence[int] | None,
) -> TensorSpec:
    """Return the spec of an input, its open axes filled."""
    dims, dtype = _dims(value), _dtype(value)
    if not dims:
        raise InputError(f"input {value.name!r} is a single number, without an axis for samples")
    stated, shape = dims[1:], []
    if given is not None and len(given) != len(stated):
        raise InputError(
            f"the shape {tuple(given)} is given for a sample of input {value.name!r}, whose axes "
            f"are {_listed(stated)}; give a number for each"
        )
    for axis, size in enumerate(stated):
        if given is None:
            shape.append(
                size if isinstance(size, int) else _open(graph, value, stated, axis, layout)
            )
        elif isinstance(size, int) and size != given[axis]:
            raise InputError(
                f"the shape {tuple(given)} is given for a sample of input {value.name!r}, whose "
                f"axes are {_listed(stated)}; leave the fixed sizes as they are"
            )
        elif int(given[axis]) < 1:
            raise InputError(f"the shape {tuple(given)} of input {value.name!r} has no numbers")
        else:
            shape.append(int(given[axis]))
    return TensorSpec(
        name=value.name,
        shape=tuple(shape),
        dtype=dtype,
        high=_high(graph, value.name, dtype, shape),
    )


def _listed(dims: Sequence[int | str]) -> str:
    return f"({', '.join(str(size) or '?' for size in dims)})"


def _open(
    graph: onnx.GraphProto,
    value: onnx.ValueInfoProto,
    stated: Sequence[int | str],
    axis: int,
    layout: str | None,
) -> int:
    """Return the default size of an open axis."""
    if layout is not None and len(stated) == 3:
        channels = 2 if layout == "NHWC" else 0
        if axis == channels:
            return _read_channels(graph, value.name)
        sides = [size for n, size in enumerate(stated) if n != channels and isinstance(size, int)]
        return sides[0] if sides else IMAGE_SIDE
    if len(stated) == 1 and (token_role(value.name) or _dtype(value).startswith("int")):
        fixed = (_dims(v)[1:] for v in graph.input if token_role(v.name))
        return next((d[0] for d in fixed if len(d) == 1 and isinstance(d[0], int)), LENGTH)
    raise InputError(
        f"input {value.name!r} leaves the size of its axis {axis + 1} open "
        f"({_listed(stated)[1:-1]}, without the batch); state the shape of a sample of it"
    )


def _read_channels(graph: onnx.GraphProto, name: str) -> int:
    """Return the channels that the convolutions after an input read; 3 if there are none."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and name in node.input and node.input[1] in shapes:
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            return int(shapes[node.input[1]][1] * groups)
        if node.op_type == "Transpose" and name in node.input:
            return _read_channels(graph, node.output[0])
    return 3


def _high(graph: onnx.GraphProto, name: str, dtype: str, shape: Sequence[int]) -> int | None:
    """Return the exclusive bound of an integer input: the rows of the table that it indexes."""
    if not np.issubdtype(np.dtype(dtype), np.integer):
        return None
    if len(shape) == 3:
        return 256
    if token_role(name) == "mask":
        return 2
    tables = {tensor.name: int(tensor.dims[0]) for tensor in graph.initializer if tensor.dims}
    names, rows = {name}, []
    for node in graph.node:
        if node.op_type == "Gather" and len(node.input) > 1 and node.input[1] in names:
            rows += [tables[node.input[0]]] if node.input[0] in tables else []
        elif node.op_type in _PASSED and node.input and node.input[0] in names:
            names.add(node.output[0])
    return min(rows, default=2 if token_role(name) == "types" else None)


def _classes(
    graph: onnx.GraphProto, inputs: Sequence[TensorSpec], folder: Path | None
) -> tuple[str, ...]:
    """Return the names of the classes that an (n, classes) output scores; empty if none does."""
    found = {}
    for value in graph.output:
        shape = value.type.tensor_type.shape.dim
        lengths = {tensor.shape[0] for tensor in inputs if len(tensor.shape) == 1}
        if len(shape) == 2 and not holds_vectors(value.name) and not holds_values(value.name):
            found[value.name] = 0 if shape[1].dim_value in lengths else shape[1].dim_value
    named = [count for name, count in found.items() if holds_scores(name)]
    count = next(iter(named or found.values()), 0) if named or len(graph.output) == 1 else 0
    if not 2 <= count <= MOST_CLASSES:
        return ()
    numbers = tuple(map(str, range(count)))
    stated = {} if folder is None else read_settings(folder / "config.json").get("id2label")
    if not isinstance(stated, Mapping):
        return numbers
    names = tuple(str(stated.get(number, "")) for number in numbers)
    is_named = all(names) and len(set(names)) == count and len(stated) == count
    return names if is_named and not names[0].startswith("LABEL_") else numbers
