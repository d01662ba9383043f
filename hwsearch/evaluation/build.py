"""Building of recalibrated subnets and their models, which are timed, scored and exported."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

import onnx
from numpy.typing import NDArray
from torch import nn

from hwsearch.accuracy.recalibrate import StatisticsCache, recalibrate_together
from hwsearch.accuracy.task import Task
from hwsearch.blocks import Block
from hwsearch.devices import Device
from hwsearch.errors import DataError, EvaluationError, InputError, unknown
from hwsearch.files import is_of_disk
from hwsearch.models.artifact import Exported
from hwsearch.models.export import to_onnx
from hwsearch.models.onnx_file import PRECISIONS
from hwsearch.models.quantize import quantization_for, quantize_int8, to_fp16
from hwsearch.models.repeated_weights import with_repeated_weights
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

P = ParamSpec("P")
T = TypeVar("T")
# Ranges do not depend on it; small, so that all activations of a large subnet fit.
RANGE_BATCH = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model, and its share of the build time in seconds.

    ``exported`` has the recalibrated subnet; it is None for a model with repeated weights.
    """

    model: onnx.ModelProto
    exported: Exported | None
    cost_s: float


class Builder:
    """Builds models in the device's precision, which may be used on another machine.

    Batch statistics, and the ranges of int8 activations, come from the task's calibration.

    Attributes:
        calibration_digest: Digest of the calibration samples; None without recalibration.
        context: What else determines a file, such as ``"fp32"``.
        repeats_weights: Whether models can be built for timing only. Those of int8 cannot, since
            ranges of activations depend on the weights.
    """

    def __init__(self, net: Supernet, device: Device, task: Task) -> None:
        check_conversion(device, task)
        self._net, self._task, self._precision = net, task, device.precision
        self._calibration = task.calibration if net.recalibrate else None
        self._ranges = task.calibration if self._precision == "int8" else None
        self.calibration_digest = None if self._calibration is None else self._calibration.digest
        self._statistics = StatisticsCache(net.recalibrate)
        self._quantization = quantization_for(device.fingerprint())
        self.repeats_weights = self._precision != "int8"
        self.context = self._precision
        if self._ranges is not None:
            ranges = f"{len(self._ranges)}@{self._ranges.digest}"
            self.context += f" ({self._quantization}, ranges={ranges})"

    def build(
        self, archs: Sequence[Architecture], *, only_timed: bool = False
    ) -> Iterator[Built | EvaluationError]:
        """Yield a built subnet, or the error of building it, for each architecture in order.

        Results do not depend on which architectures are built together. ``only_timed`` repeats
        weights, on which latency does not depend: see `hwsearch.models.repeated_weights`.

        Raises:
            DataError: The calibration samples cannot be read.
        """
        if only_timed:
            yield from (attempt(self._repeat_weights, arch) for arch in archs)
            return
        drafts = [attempt(self._draft, arch) for arch in archs]
        self._recalibrate([draft for draft in drafts if isinstance(draft, _Draft)])
        for draft in drafts:
            yield draft if isinstance(draft, EvaluationError) else attempt(self._finish, draft)

    def _repeat_weights(self, arch: Architecture) -> Built:
        begin = time.perf_counter()
        model = self._convert(arch, with_repeated_weights(to_onnx(self._net, arch)))
        return Built(model=model, exported=None, cost_s=time.perf_counter() - begin)

    def _draft(self, arch: Architecture) -> "_Draft":
        begin = time.perf_counter()
        subnet, spec = self._net.subnet(arch), self._net.input_spec(arch)
        blocks = self._net.blocks(arch) if len(spec.inputs) == 1 else None
        return _Draft(arch, subnet, spec, blocks, cost_s=time.perf_counter() - begin)

    def _recalibrate(self, drafts: Sequence["_Draft"]) -> None:
        """Recalibrate subnets with the same inputs together; reuse cached statistics."""
        groups: dict[InputSpec, list[_Draft]] = {}
        for draft in drafts:
            if not self._statistics.restore(draft.arch, draft.subnet):
                groups.setdefault(draft.spec, []).append(draft)
        for spec, group in groups.items():
            chains = {draft.subnet: draft.blocks for draft in group}
            results = attempt(
                recalibrate_together, chains, self._net.recalibrate, self._batches(spec)
            )
            if isinstance(results, EvaluationError):
                results = [results] * len(group)
            for draft, result in zip(group, results, strict=True):
                if isinstance(result, Exception):
                    draft.error = result
                else:
                    draft.cost_s += result
                    self._statistics.keep(draft.arch, draft.subnet)

    def _batches(self, spec: InputSpec) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the inputs anew each time: all preprocessed inputs would not fit into memory."""
        if self._calibration is not None:
            batches = self._calibration.batches(self._task.calibration_batch, spec)
            yield from (fed for fed, _ in batches)

    def _finish(self, draft: "_Draft") -> Built:
        if draft.error is not None:
            raise draft.error
        begin, arch = time.perf_counter(), draft.arch
        fp32 = to_onnx(self._net, arch, draft.subnet, calibration=self.calibration_digest)
        model = self._convert(arch, fp32)
        original = None if model is fp32 else fp32
        return Built(
            model=model,
            exported=Exported(arch=arch, subnet=draft.subnet, model=model, original=original),
            cost_s=draft.cost_s + time.perf_counter() - begin,
        )

    def _convert(self, arch: Architecture, model: onnx.ModelProto) -> onnx.ModelProto:
        """Convert a float32 model to the precision; return it unchanged for fp32."""
        if self._precision == "fp16":
            return to_fp16(model)
        if self._ranges is not None:
            batches = self._ranges.batches(RANGE_BATCH, self._net.input_spec(arch))
            inputs, digest = (fed for fed, _ in batches), self._ranges.digest
            return quantize_int8(model, inputs, self._quantization, digest=digest)
        return model


@dataclass(slots=True, eq=False)
class _Draft:
    """A subnet that is being built; ``blocks`` are None where it is no chain of one input."""

    arch: Architecture
    subnet: nn.Module
    spec: InputSpec
    blocks: Sequence[Block] | None
    cost_s: float
    error: Exception | None = None


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


def attempt(step: Callable[P, T], *args: P.args, **named: P.kwargs) -> T | EvaluationError:
    """Return the result of a step, or the error that fails the trial; a family may raise any.

    Unreadable samples (`DataError`) and a full or read-only disk (`OSError`) are raised: they are
    not the trial's fault.
    """
    try:
        return step(*args, **named)
    except EvaluationError as error:
        return error
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_of_disk(error):
            raise
        failure = EvaluationError(f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure


def raised(result: T | EvaluationError) -> T:
    """Return a result; raise it if it is an error."""
    if isinstance(result, EvaluationError):
        raise result
    return result
