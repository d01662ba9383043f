"""Check of a model's file before a device takes it: precision, external data, NaN weights."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hwsearch.devices.spec import file_precision
from hwsearch.errors import DeviceError, InputError
from hwsearch.quantization import MIXED

if TYPE_CHECKING:
    import onnx


def refusal(model: Path, device: str, precision: str) -> DeviceError | None:
    """Return why a device cannot take a model, None where it can or the file cannot be read.

    The runtime returns the reason why it cannot read a file.
    """
    try:
        found = model.stat()
    except OSError:
        return None
    problem, own = _inspected(model, found.st_mtime_ns, found.st_size)
    precision = file_precision(precision)
    if problem is None and precision != MIXED and own not in ("", precision):
        problem = (
            f"is {own}, and {device} takes {precision}: give a {precision} file, or a device with "
            f"precision={own if own in ('fp32', 'fp16', 'int8') else MIXED}"
        )
    return None if problem is None else DeviceError(f"{model.name} {problem}")


@lru_cache(maxsize=1024)
def _inspected(model: Path, mtime_ns: int, size: int) -> tuple[str | None, str]:  # noqa: ARG001
    """Parse a file once; return its defect for every device, and its precision."""
    if find_spec("hwsearch.models") is None:
        return None, ""  # in a kit, whose models have the precision that it compares once
    from hwsearch.models.onnx_file import precision_of, read_model, stray_data

    try:
        read = read_model(model)
    except Exception:  # noqa: BLE001 - protobuf's own error class has no types
        return None, ""
    if (stray := stray_data(read, model.parent)) is not None:
        return (
            f"stores weights in {stray!r:.120}, outside of its folder; put them into the model's "
            "file, or beside it"
        ), ""
    try:
        own = precision_of(read)
    except InputError as error:
        return f"states no known precision: {error}", ""
    if (name := _nan_weight(read)) is not None:
        return f"has NaN in its weight {name!r}: train or convert it again", own
    return None, own


def _nan_weight(model: "onnx.ModelProto") -> str | None:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    for tensor in model.graph.initializer:
        if tensor.data_type in floats and not tensor.data_location:
            # A damaged tensor is left to the runtime.
            try:
                values = numpy_helper.to_array(tensor)
            except (ValueError, TypeError):
                continue
            if np.isnan(values).any():
                return str(tensor.name)
    return None
