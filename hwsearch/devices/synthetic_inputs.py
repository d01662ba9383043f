"""Synthetic inputs of timed runs, and checks of inputs and outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.runtime import Bound, Declared, Feeds, LoadedModel


def check_inputs(declared: Sequence[Declared], feeds: Feeds) -> None:
    """Check names and types of inputs, which not every runtime does, else raise ValueError."""
    wanted = {item.name: item.dtype for item in declared}
    for name, array in feeds.items():
        if name not in wanted:
            raise ValueError(f"the model has no input {name!r}; it has {', '.join(wanted)}")
        if str(array.dtype) != wanted[name]:
            raise ValueError(f"input {name!r} is {wanted[name]}, and {array.dtype} was given")
    if missing := wanted.keys() - feeds.keys():
        raise ValueError(f"no values were given for input {', '.join(sorted(missing))}")


def bind_synthetic(model: LoadedModel, batch: int) -> tuple[Feeds, Bound]:
    """Bind a model to synthetic inputs, and raise ValueError where its outputs are NaN.

    A model may take the logarithm or the root of its inputs, so positive ones are tried too.
    """
    problem = ""
    for positive in (False, True):
        feeds = synthetic_inputs(model.inputs, batch, positive=positive)
        bound = model.bind(feeds)
        problem = next(
            (
                f"output {name!r} is NaN in {n:,} of {array.size:,} values"
                for name, array in bound.outputs.items()
                if array.dtype.kind == "f" and (n := int(np.isnan(array).sum()))
            ),
            "",
        )
        if not problem:
            return feeds, bound
    raise ValueError(
        f"{problem}, for standard normal inputs and for inputs between 0 and 1 alike: it was not "
        "timed, as its weights or operators make every answer meaningless"
    )


def synthetic_inputs(
    declared: Sequence[Declared], batch: int, *, positive: bool = False
) -> dict[str, NDArray[Any]]:
    """Create the inputs of timed runs, the same values every time.

    Floating-point inputs are standard normal, or uniform from 0 to 1 where ``positive``; integers
    are 0 or 1, which every vocabulary, mask and segment input accepts. ``batch`` is the value of a
    symbolic first dimension; a fixed one must be equal to it.

    Raises:
        ValueError: An input has an unknown dimension beyond the first, another fixed batch, or a
            type that is no tensor of numbers.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for item in declared:
        try:
            dtype = np.dtype(item.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind not in "biuf":
            raise ValueError(f"input {item.name!r} has type {item.dtype}, not a tensor of numbers")
        shape = [_dimension(item, axis, batch) for axis in range(len(item.shape))]
        if dtype.kind == "f":
            values = rng.random(shape) if positive else rng.standard_normal(shape)
            feeds[item.name] = np.asarray(values).astype(dtype)
        else:
            feeds[item.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return feeds


def _dimension(item: Declared, axis: int, batch: int) -> int:
    size, shape = item.shape[axis], list(item.shape)
    known = isinstance(size, int)
    if axis > 0 and not known:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: dimension {axis} ({size or 'unnamed'}) "
            "is not fixed, and only the first one may be open. Export the model with it fixed, or "
            f"fix it with: python -m onnxruntime.tools.make_dynamic_shape_fixed "
            f"{_fix(item, axis)} MODEL.onnx FIXED.onnx"
        )
    if axis == 0 and known and len(shape) > 1 and size != batch:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: its batch is fixed to {size}, and this "
            f"device runs batch {batch}; export it with a dynamic batch, or add batch={size} to "
            f"the device, as in ort-cpu:threads=1,batch={size}"
        )
    return size if isinstance(size, int) else batch


def _fix(item: Declared, axis: int) -> str:
    """Return the options of ONNX Runtime's tool that fix a dimension."""
    size = item.shape[axis]
    if isinstance(size, str):
        return f"--dim_param {size} --dim_value N"
    sizes = ",".join(str(each) if isinstance(each, int) else "N" for each in item.shape)
    return f"--input_name {item.name} --input_shape {sizes}"
