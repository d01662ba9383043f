"""Models that are timed, scored and exported: built once for each architecture, and cached."""

import shutil
import tempfile
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import onnx
from numpy.typing import NDArray
from torch import nn

from hwsearch.accuracy.recalibrate import StatisticsCache, recalibrate_together
from hwsearch.accuracy.scoring import prefix_groups
from hwsearch.accuracy.task import Task
from hwsearch.blocks import Block
from hwsearch.devices import Device
from hwsearch.devices.spec import file_precision
from hwsearch.errors import DataError, EvaluationError, InputError, unknown
from hwsearch.files import DISK_ERRNOS
from hwsearch.machine import available_memory_bytes
from hwsearch.models.artifact import Exported
from hwsearch.models.export import to_onnx
from hwsearch.models.onnx_file import PRECISIONS, write_model
from hwsearch.models.quantize import check_converter, quantize_int8, to_fp16
from hwsearch.models.repeated_weights import timing_model
from hwsearch.quantization import quantization_for
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

P = ParamSpec("P")
T = TypeVar("T")
# A model, the recalibrated subnet (None: the model has repeated weights) and the build time in s.
Built = tuple[onnx.ModelProto, Exported | None, float]
# Ranges do not depend on it; small, so that all activations of a large subnet fit.
RANGE_BATCH = 25
SHARE_OF_MEMORY = 0.1  # of what is available when the first model is built
SHARE_OF_DISK = 0.1  # of the free space in the temporary folder then


class Builder:
    """Builds models in the device's precision, which may be used on another machine.

    Batch statistics, and the ranges of int8 activations, come from the task's calibration.

    Attributes:
        calibration_digest: Digest of the calibration samples; None without recalibration.
        context: What else determines a file, such as ``"fp32"``.
    """

    def __init__(self, net: Supernet, device: Device, task: Task) -> None:
        check_conversion(device, task)
        self._net, self._task, self._precision = net, task, file_precision(device.precision)
        self._run_in = None if self._precision == device.precision else device.precision
        self._calibration = task.calibration if net.recalibrate else None
        self._ranges = task.calibration if self._precision == "int8" else None
        self.calibration_digest = None if self._calibration is None else self._calibration.digest
        self._statistics = StatisticsCache(net.recalibrate)
        self._quantization = quantization_for(device.fingerprint())
        self.context = self._precision + (f" run in {self._run_in}" if self._run_in else "")
        if self._ranges is not None:
            ranges = f"{len(self._ranges)}@{self._ranges.digest}"
            self.context += f" ({self._quantization}, ranges={ranges})"

    def build(
        self, archs: Sequence[Architecture], *, only_timed: bool = False
    ) -> Iterator[Built | EvaluationError]:
        """Yield a built subnet, or the error of building it, for architectures of equal inputs.

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
        model = timing_model(self._net, arch, self._precision, self._quantization)
        return model, None, time.perf_counter() - begin

    def _draft(self, arch: Architecture) -> "_Draft":
        begin = time.perf_counter()
        subnet, spec = self._net.subnet(arch), self._net.input_spec(arch)
        blocks = self._net.blocks(arch) if len(spec.inputs) == 1 else None
        return _Draft(arch, subnet, spec, blocks, cost_s=time.perf_counter() - begin)

    def _recalibrate(self, drafts: Sequence["_Draft"]) -> None:
        new = [d for d in drafts if not self._statistics.restore(d.arch, d.subnet)]
        if not new:
            return
        chains, batches = {draft.subnet: draft.blocks for draft in new}, self._batches(new[0].spec)
        results = attempt(recalibrate_together, chains, self._net.recalibrate, batches)
        if isinstance(results, EvaluationError):
            results = [results] * len(new)
        for draft, result in zip(new, results, strict=True):
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
        exported = Exported(
            arch=arch, subnet=draft.subnet, model=model, original=original, run_in=self._run_in
        )
        return model, exported, draft.cost_s + time.perf_counter() - begin

    def _convert(self, arch: Architecture, model: onnx.ModelProto) -> onnx.ModelProto:
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
    if file_precision(device.precision) not in PRECISIONS:
        raise unknown(f"precision of device {device.spec!r}", device.precision, PRECISIONS)
    if device.precision == "fp32":
        return
    check_converter(device.spec, device.precision)
    if find_spec("onnxruntime") is None:
        raise InputError(
            f"device {device.spec!r} computes in {device.precision}, and onnxruntime, which "
            "checks files in float32, is not installed: pip install 'hwsearch[cpu]'"
        )
    if device.precision == "int8" and task.calibration is None:
        raise InputError(
            f"device {device.spec!r} takes int8 files, whose activations get their ranges from "
            f"calibration samples, and data {task.spec!r} has none; give data with a calibration "
            "split, or a device with precision=fp32"
        )


@dataclass(slots=True, kw_only=True)
class BuiltModel:
    """A model file that is ready to be timed and scored.

    Attributes:
        exported: The network and its model; None if they left memory, or are only timed.
        only_timed: Whether its weights are repeated ones (`hwsearch.models.repeated_weights`).
        cost_s: Build time in seconds that no measurement has recorded.
        memory_bytes: Size of the objects in memory.
    """

    path: Path
    exported: Exported | None
    only_timed: bool
    cost_s: float
    file_bytes: int
    memory_bytes: int

    def charge(self) -> float:
        """Return the build time in seconds once, then 0."""
        cost_s, self.cost_s = self.cost_s, 0.0
        return cost_s


class BuiltModels:
    """An LRU cache of built models in a temporary folder and in memory, by architecture.

    Over the bounds, networks leave memory, and files are removed unless the current call needs
    them; both are rebuilt on demand. ``memory`` and ``disk`` are the bounds in bytes, by default
    a tenth of what is available.
    """

    def __init__(
        self, net: Supernet, builder: Builder, memory: int | None = None, disk: int | None = None
    ) -> None:
        self._net, self._builder = net, builder
        self._memory, self._disk = memory, disk
        self._entries: OrderedDict[Architecture, BuiltModel] = OrderedDict()
        self._folder: Path | None = None
        self._remove: weakref.finalize[..., BuiltModels] | None = None

    def get(
        self,
        archs: Sequence[Architecture],
        *,
        only_timed: bool = False,
        keep: Sequence[Architecture] = (),
    ) -> dict[Architecture, BuiltModel | EvaluationError]:
        """Return the model of each distinct architecture, or the error of building it.

        Missing ones are built together. ``only_timed`` accepts models with other weights. Files
        of ``keep`` are not removed.
        """
        needed = [*archs, *keep]
        self._trim(needed)
        # A fully built one is used for timing too; a file may have been removed by others.
        fit = {
            arch
            for arch, entry in self._entries.items()
            if (only_timed or not entry.only_timed) and entry.path.is_file()
        }
        missing = [arch for arch in archs if arch not in fit]
        failed: dict[Architecture, EvaluationError] = {}
        for group in prefix_groups(self._net, missing):
            failed |= self._build(group, only_timed=only_timed)
            self._trim(needed)
        for arch in archs:
            if arch in self._entries:
                self._entries.move_to_end(arch)
        return {arch: failed.get(arch) or self._entries[arch] for arch in archs}

    def exported(self, arch: Architecture) -> Exported:
        """Return the recalibrated network and its model in the device's precision.

        Raises:
            EvaluationError: The subnet cannot be built, recalibrated, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        self._trim([arch])
        entry = self._entries.get(arch)
        if entry is None or entry.exported is None:  # it was not built, or left memory
            for error in self._build([arch]).values():
                raise error
            entry = self._entries[arch]
        self._entries.move_to_end(arch)
        assert entry.exported is not None
        return entry.exported

    def close(self) -> None:
        """Remove the files; later requests build again."""
        self._entries.clear()
        if self._remove is not None:
            self._remove()
        self._folder = self._remove = None

    def _build(
        self, archs: Sequence[Architecture], *, only_timed: bool = False
    ) -> dict[Architecture, EvaluationError]:
        """Build and keep models; return the errors of the others."""
        failed = {}
        built = self._builder.build(archs, only_timed=only_timed)
        for arch, result in zip(archs, built, strict=True):
            if isinstance(result, EvaluationError):
                failed[arch] = result
                continue
            before, self._entries[arch] = self._entries.get(arch), self._written(arch, result)
            if before is not None and before.path != self._entries[arch].path:
                before.path.unlink(missing_ok=True)
        return failed

    def _written(self, arch: Architecture, built: Built) -> BuiltModel:
        begin, (model, exported, cost_s) = time.perf_counter(), built
        only_timed, memory_bytes = exported is None, 0
        path = self._scratch() / f"{arch.key}{'-timed' if only_timed else ''}.onnx"
        n_bytes = write_model(path, model, exported)
        if exported is not None:
            original = exported.original
            memory_bytes = n_bytes + (0 if original is None else int(original.ByteSize()))
            memory_bytes += sum(each.nbytes for each in exported.subnet.state_dict().values())
        return BuiltModel(
            path=path,
            exported=exported,
            only_timed=only_timed,
            cost_s=cost_s + time.perf_counter() - begin,
            file_bytes=n_bytes,
            memory_bytes=memory_bytes,
        )

    def _scratch(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hwsearch-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            if self._memory is None:
                self._memory = int(SHARE_OF_MEMORY * available_memory_bytes())
            if self._disk is None:
                self._disk = int(SHARE_OF_DISK * shutil.disk_usage(self._folder).free)
        self._folder.mkdir(exist_ok=True)  # others may have removed it
        return self._folder

    def _trim(self, needed: Collection[Architecture]) -> None:
        """Enforce the bounds, except for files of the needed architectures."""
        in_memory = sum(each.memory_bytes for each in self._entries.values())
        on_disk = sum(each.file_bytes for each in self._entries.values())
        for arch, entry in list(self._entries.items()):
            if self._memory is not None and in_memory > self._memory:
                in_memory -= entry.memory_bytes
                entry.exported, entry.memory_bytes = None, 0
            if self._disk is not None and on_disk > self._disk and arch not in needed:
                on_disk -= entry.file_bytes
                entry.path.unlink(missing_ok=True)
                del self._entries[arch]


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
        if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
            raise
        failure = EvaluationError(f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure


def raised(result: T | EvaluationError) -> T:
    """Return a result; raise it if it is an error."""
    if isinstance(result, EvaluationError):
        raise result
    return result
