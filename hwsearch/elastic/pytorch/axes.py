"""Axes of a module's inputs, besides the batch, that may have other sizes than the example."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from torch import Tensor, nn

from hwsearch.elastic.pytorch.call import ModuleCall

_IMAGE_STEP, _SEQUENCE_STEP = 32, 3
# Number of axes of a floating-point input -> names of those behind the batch that are tried.
_AXES = {
    2: ("length",),
    3: ("sequence", "length"),
    4: ("", "height", "width"),
    5: ("", "frames", "height", "width"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis that one or several inputs have in common.

    Attributes:
        name: In the ONNX model.
        places: (input, position) of it.
        tried: Another size that the module takes.
        is_sequence: Whether it counts the steps of a sequence. A trace must follow its size; that
            of an image is better traced as a constant, and tried afterwards.
    """

    name: str
    places: tuple[tuple[str, int], ...]
    tried: int
    is_sequence: bool


def flexible_axes(module: nn.Module, call: ModuleCall) -> list[Axis]:
    """Return the axes of the inputs for which the module takes other sizes than the example's."""
    found = []
    for name, places, is_sequence in _candidates(call):
        size = call.inputs[places[0][0]].shape[places[0][1]]
        step = _SEQUENCE_STEP if is_sequence else max(_IMAGE_STEP, size // 8 // 32 * 32)
        for tried in (size + step, size - step):
            axis = Axis(name=name, places=places, tried=tried, is_sequence=is_sequence)
            if tried > 0 and _runs(module, call, [axis]):
                found.append(axis)
                break
    return found


def _candidates(call: ModuleCall) -> Iterable[tuple[str, tuple[tuple[str, int], ...], bool]]:
    """Yield name, places and whether it is a sequence, of each axis that is worth a try."""
    steps: dict[int, list[tuple[str, int]]] = {}
    for name, tensor in call.inputs.items():
        if tensor.ndim == 2 and not tensor.is_floating_point():
            steps.setdefault(tensor.shape[1], []).append((name, 1))
    for name, tensor in call.inputs.items():  # such as a mask of float, or features of the steps
        if tensor.ndim in (2, 3) and tensor.is_floating_point() and tensor.shape[1] in steps:
            steps[tensor.shape[1]].append((name, 1))
    for number, places in enumerate(steps.values()):
        yield ("sequence" if not number else f"sequence{number}"), tuple(places), True
    joined = {place for places in steps.values() for place in places}
    one = len(call.inputs) == 1
    for name, tensor in call.inputs.items():
        if not tensor.is_floating_point():
            continue
        for position, axis in enumerate(_AXES.get(tensor.ndim, ()), start=1):
            if axis and (name, position) not in joined:
                place = (name, position)
                yield axis if one else f"{name}_{axis}", (place,), axis == "sequence"


def _runs(module: nn.Module, call: ModuleCall, axes: Sequence[Axis]) -> bool:
    sizes = {place: axis.tried for axis in axes for place in axis.places}
    try:
        call(module, call.examples(1, sizes))
    except Exception:  # noqa: BLE001 - a module raises any class for what it does not take
        return False
    return True


def name_axes(
    model: onnx.ModelProto, call: ModuleCall, module: nn.Module, axes: Sequence[Axis]
) -> None:
    """Write the shapes of inputs and outputs: sizes, and names of the axes that are dynamic."""
    names = {place: axis.name for axis in axes for place in axis.places}
    for value in model.graph.input:
        sizes = enumerate(call.inputs[value.name].shape)
        _write_shape(
            value,
            [
                "batch" if not position else names.get((value.name, position), size)
                for position, size in sizes
            ],
        )
    before = call(module, call.examples(1))
    dims: dict[str, list[str | int]] = {n: list(tensor.shape) for n, tensor in before.items()}

    def note(other: Mapping[str, Tensor], change: tuple[int, int], axis: str) -> None:
        """Name the axes of outputs that differ by a change of the inputs."""
        for output, tensor in other.items():
            pairs = zip(before[output].shape, tensor.shape, strict=True)
            for position, pair in enumerate(pairs):
                if pair == change:
                    dims[output][position] = axis
                elif pair[0] != pair[1]:
                    dims[output][position] = f"{output}_axis{position}"

    note(call(module, call.examples(2)), (1, 2), "batch")
    for each in axes:
        input_, position = each.places[0]
        change = (call.inputs[input_].shape[position], each.tried)
        tried = dict.fromkeys(each.places, each.tried)
        note(call(module, call.examples(1, tried)), change, each.name)
    for value in model.graph.output:
        _write_shape(value, dims[value.name])
    del model.graph.value_info[:]


def _write_shape(value: onnx.ValueInfoProto, dims: Sequence[str | int]) -> None:
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for dim in dims:
        if isinstance(dim, str):
            shape.dim.add(dim_param=dim)
        else:
            shape.dim.add(dim_value=dim)
