"""Conversion of float32 models to the precision of a device."""

from importlib.util import find_spec

import onnx

from hwsearch.accuracy.task import Task
from hwsearch.devices.base import Device
from hwsearch.errors import InputError, unknown
from hwsearch.models.onnx_file import PRECISIONS
from hwsearch.models.quantize import quantization_for, quantize_int8, to_fp16
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

# Ranges do not depend on it; small, so that all activations of a large subnet fit.
RANGE_BATCH = 25


class Conversion:
    """Converts models to the precision of a device, which may be used on another machine.

    int8 activations get their ranges from the task's calibration samples. ``context`` is what
    determines a file, such as ``"fp32"``.
    """

    def __init__(self, net: Supernet, device: Device, task: Task) -> None:
        self._net, self._precision = net, device.precision
        check_conversion(device, task)
        self._samples = task.calibration if self._precision == "int8" else None
        self._quantization = quantization_for(device.fingerprint())
        self.context = self._precision
        if self._samples is not None:
            ranges = f"{len(self._samples)}@{self._samples.digest}"
            self.context += f" ({self._quantization}, ranges={ranges})"

    def __call__(self, arch: Architecture, model: onnx.ModelProto) -> onnx.ModelProto:
        """Convert a float32 model; return it unchanged for fp32.

        Raises:
            EvaluationError: The precision cannot represent the model.
            DataError: The calibration samples cannot be read.
        """
        if self._precision == "fp16":
            return to_fp16(model)
        if self._samples is not None:
            batches = self._samples.batches(RANGE_BATCH, self._net.input_spec(arch))
            inputs = (fed for fed, _ in batches)
            digest = self._samples.digest
            return quantize_int8(model, inputs, self._quantization, digest=digest)
        return model


def check_conversion(device: Device, task: Task) -> None:
    """Refuse a device whose precision is unknown, or lacks a converter or calibration samples."""
    if device.precision not in PRECISIONS:
        raise unknown(f"precision of device {device.spec!r}", device.precision, PRECISIONS)
    if device.precision == "fp32":
        return
    if find_spec("onnxruntime") is None:
        raise InputError(
            f"device {device.spec!r} takes {device.precision} files, and onnxruntime, which "
            "converts to them, is not installed: pip install 'hwsearch[cpu]'"
        )
    if device.precision == "int8" and task.calibration is None:
        raise InputError(
            f"device {device.spec!r} takes int8 files, whose activations get their ranges from "
            f"calibration samples, and data {task.spec!r} has none; give data with a calibration "
            "split, or a device with precision=fp32"
        )
