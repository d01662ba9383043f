"""Running of models while they are verified; a model that does not run is refused."""

import tempfile
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.devices.base import Device
from hwsearch.errors import DeviceError, VerificationError
from hwsearch.models.artifact import MODEL

CPU: Final = "ort-cpu"  # the device that float32 models are checked on


def run_file(
    device: Device, model: Path, inputs: dict[str, NDArray[Any]]
) -> list[NDArray[np.float32]]:
    """Return the outputs of a model file on one batch of inputs by name."""
    try:
        (outputs,) = device.run(model, [inputs])
    except DeviceError as error:
        raise VerificationError(f"{model.name} does not run: {error}") from error
    return list(outputs)


def run_original(
    device: Device, original: onnx.ModelProto, inputs: dict[str, NDArray[Any]]
) -> list[NDArray[np.float32]]:
    """Run a float32 model, on ``ort-cpu`` where the device is of another precision."""
    fits = device.precision == "fp32"
    with nullcontext(device) if fits else on_cpu(device) as runner:
        return run_model(runner, original, inputs)


def on_cpu(device: Device) -> AbstractContextManager[Device]:
    """Open the device ``ort-cpu``, which computes in float32 proper, unless it is open already."""
    from hwsearch.devices import load_device

    if device.spec.partition(":")[0] == CPU and device.precision == "fp32":
        return nullcontext(device)
    return closing(load_device(CPU))


def run_model(
    device: Device, model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]
) -> list[NDArray[np.float32]]:
    """Return the outputs of a model on one batch of inputs by name."""
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
        onnx.save(model, Path(scratch) / MODEL)
        return run_file(device, Path(scratch) / MODEL, inputs)
