"""Sizes of a model's symbolic axes for one sample, and random inputs of these sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.errors import InputError, unknown

BATCH = "batch"
# Tried in turn: the first sizes that the model runs with are taken.
_PIXELS = (224, 256, 32, 64, 128, 299, 384, 512)
_TOKENS = (32, 16, 64, 128, 8, 197, 512, 1)
_SAMPLES = (16000, 1024, 128, 32)  # of a signal
_OTHERS = (32, 16, 8, 64, 128, 4, 3, 2, 1)
_MOST_CHANNELS = 4  # of an image
_BATCHES = (1, 2, 3, 5)
_STRIDE = 32
# Sizes that a graph is not traced for, as factor and addend.
_UNSEEN_LENGTHS = ((0, 1), (0, 3), (1.25, 1), (3, 1))
_UNSEEN_PIXELS = ((0.5, 0), (0.25, 0), (1, 1), (1.5, 0))
_UNBOUNDED = 2  # integers that index nothing are masks and types of tokens
_PASSES_ON = frozenset(
    ("Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze",
     "Transpose", "Unsqueeze")
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InputAxes:
    """An input of a model: a number for each fixed axis, a name for each symbolic one.

    The batch is called `BATCH`, and ``rank`` None if the file does not tell it.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str, ...]


def input_axes(
    model: ir.Model, given: Mapping[str, tuple[int, ...]] | None = None
) -> list[InputAxes]:
    """Return the axes of all inputs; fixed first axes stay numbers.

    Axes of equal names have equal sizes. An input whose number of axes the file does not tell has
    that of the shape ``given`` for it.

    Raises:
        InputError: The number of axes is unknown, or ``given`` does not fit.
    """
    given = given or {}
    names = [str(value.name) for value in model.graph.inputs]
    for name in given:
        if name not in names:
            raise unknown("input", name, names, "Name an input of the model.")
    found = []
    for value in model.graph.inputs:
        name = str(value.name)
        if value.shape is None:
            if name not in given:
                raise InputError(
                    f"the model does not tell the shape of input {name!r}; give it, as in "
                    f"sample_shapes={{{name!r}: (1, 3, 224, 224)}}"
                )
            dims: list[int | str] = [BATCH, *given[name][1:]]
        else:
            dims = [
                size if isinstance(size, int) and size > 0 else _symbol(name, axis, size)
                for axis, size in enumerate(value.shape)
            ]
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        found.append(InputAxes(name=name, dtype=dtype, dims=tuple(dims)))
    return [_fitted(each, given[each.name]) if each.name in given else each for each in found]


def _symbol(name: str, axis: int, size: object) -> str:
    if axis == 0:
        return BATCH
    symbol = getattr(size, "value", None)
    return symbol if symbol and symbol != BATCH else f"{name}.{axis}"


def _fitted(axes: InputAxes, shape: tuple[int, ...]) -> InputAxes:
    """Check a given shape, with or without the batch."""
    whole = (1, *shape) if len(shape) == len(axes.dims) - 1 else shape
    fits = len(whole) == len(axes.dims) and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(axes.dims[1:], whole[1:], strict=True)
    )
    if not fits:
        dims = ", ".join(map(str, axes.dims))
        raise InputError(
            f"input {axes.name!r} has the axes ({dims}), the given shape is {tuple(shape)}; give "
            "a size for each, with or without the batch"
        )
    return axes


def candidate_sizes(
    inputs: Sequence[InputAxes],
    given: Mapping[str, tuple[int, ...]] | None = None,
    channels: Mapping[str, int] | None = None,
) -> Iterator[dict[str, int]]:
    """Yield sizes of the symbolic axes of one sample, the most likely first.

    ``channels`` are sizes of axes that weights tell.
    """
    known = {BATCH: 1, **(channels or {})}
    for each in inputs:
        shape = (given or {}).get(each.name)
        if shape is not None:
            whole = shape if len(shape) == len(each.dims) else (1, *shape)
            pairs = zip(each.dims[1:], whole[1:], strict=True)
            known |= {dim: size for dim, size in pairs if isinstance(dim, str)}
    options: dict[str, tuple[int, ...]] = {}
    for each in inputs:
        for axis, dim in enumerate(each.dims):
            if isinstance(dim, str) and dim not in known:
                options.setdefault(dim, _options(each, axis))
    for position in range(max(map(len, options.values()), default=1)):
        yield known | {
            name: sizes[min(position, len(sizes) - 1)] for name, sizes in options.items()
        }


def _options(axes: InputAxes, axis: int) -> tuple[int, ...]:
    rank = len(axes.dims)
    if axes.dtype.kind != "f":
        return _PIXELS if rank >= 4 and axes.dtype == np.uint8 else _TOKENS
    if rank >= 4:
        is_last_channels = isinstance(axes.dims[-1], int) and axes.dims[-1] <= _MOST_CHANNELS
        is_channel = axis == (rank - 1 if is_last_channels else 1)
        return (3, 1, 4, *_OTHERS) if is_channel else _PIXELS
    if rank == 3:
        return _SAMPLES if axis == 2 and axes.dims[1] in (1, 2) else _TOKENS
    return _SAMPLES if rank == 2 else _OTHERS


def shapes_of(inputs: Sequence[InputAxes], sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs for sizes of the symbolic axes."""
    return {
        each.name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in each.dims)
        for each in inputs
    }


def varied_sizes(
    inputs: Sequence[InputAxes], sizes: Mapping[str, int], *, tied: bool = False
) -> list[dict[str, int]]:
    """Return sizes of the inputs' symbolic axes that tell them apart, the sample's own first.

    No two axes vary alike, so that what equals an axis in all of them is that axis; with ``tied``
    axes of equal sizes do.
    """
    used = [name for name in sizes if any(name in each.dims for each in inputs)]
    free = [name for name in used if name != BATCH]
    pixels = {dim for each in inputs if len(each.dims) >= 4 for dim in each.dims}
    numbers = {name: number for number, name in enumerate(free)}
    if tied:
        firsts: dict[int, int] = {}
        numbers = {name: firsts.setdefault(sizes[name], len(firsts)) for name in free}
    found = []
    for variant, batch in enumerate(_BATCHES if free else _BATCHES[:3] if used else _BATCHES[:1]):
        each = {name: batch if name == BATCH else sizes[name] for name in used}
        for name in free:
            vary = _varied_pixels if name in pixels else _varied_length
            each[name] = vary(sizes[name], variant, numbers[name])
        found.append(each)
    return found


def unseen_sizes(
    inputs: Sequence[InputAxes], seen: Sequence[Mapping[str, int]]
) -> list[dict[str, int]]:
    """Return smaller and larger sizes of symbolic axes than those that were ``seen``."""
    free = [name for name in seen[0] if name != BATCH]
    pixels = {dim for each in inputs if len(each.dims) >= 4 for dim in each.dims}
    found = []
    for variant in range(len(_UNSEEN_LENGTHS) if free else 0):
        each = dict(seen[0])
        for number, name in enumerate(free):
            times, plus = (_UNSEEN_PIXELS if name in pixels else _UNSEEN_LENGTHS)[variant]
            each[name] = int(each[name] * times) + (plus if name in pixels else plus + number)
        found.append(each)
    return found


def _varied_pixels(size: int, variant: int, number: int) -> int:
    """Keep multiples of common strides and patches."""
    steps = ((0, 1, -1, 2), (0, 2, 1, -1), (0, -1, 2, 1))[number % 3]
    return max(_STRIDE, size + _STRIDE * steps[variant])


def _varied_length(size: int, variant: int, number: int) -> int:
    """Vary to both sides: tables of positions are as long as the longest input."""
    lengths = (size, size * 3 // 4 - number, size + 3 + 2 * number, size // 2 - number)
    return max(1, lengths[variant])


def random_inputs(
    model: ir.Model, shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Draw inputs: standard normal, truth values, or integers that index what they look up."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, NDArray[Any]] = {}
    for value in model.graph.inputs:
        name = str(value.name)
        shape = shapes[name]
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        if dtype.kind in "iu" and dtype == np.uint8 and len(shape) >= 3:
            array: NDArray[Any] = rng.integers(0, 256, size=shape)
        elif dtype.kind in "iu":
            bound = index_bound(value)
            array = rng.integers(0, bound or _UNBOUNDED, size=shape)
            if bound is None and array.ndim:  # a mask without a single token gives NaN
                array[..., 0] = 1
        elif dtype.kind == "b":
            array = rng.integers(0, 2, size=shape)
            if array.ndim:
                array[..., 0] = 1
        else:
            array = rng.standard_normal(shape)
        drawn[name] = np.asarray(array).astype(dtype)
    return drawn


def index_bound(value: ir.Value) -> int | None:
    """Return the number of rows of the smallest table that integers of an input look up."""
    bounds, waiting, seen = [], [value], set()
    while waiting:
        each = waiting.pop()
        for node, position in each.uses():
            if node in seen:
                continue
            if node.op_type == "Gather" and position == 1:
                table = node.inputs[0]
                if table is not None and table.const_value is not None:
                    shape = table.const_value.shape.numpy()
                    bounds.append(shape[node.attributes.get_int("axis", 0)])
            elif node.op_type in _PASSES_ON and position == 0:
                seen.add(node)
                waiting.append(node.outputs[0])
    return min(bounds, default=None)
