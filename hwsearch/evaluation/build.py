"""Models that are timed, scored and exported: built once for each architecture, and cached."""

import shutil
import tempfile
import time
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from hwsearch.accuracy.input_batches import InputBatches
from hwsearch.accuracy.scoring import prefix_groups
from hwsearch.accuracy.task import Task
from hwsearch.devices import Device
from hwsearch.devices.spec import file_precision
from hwsearch.errors import EvaluationError, InputError, unknown
from hwsearch.evaluation.attempt import attempt
from hwsearch.evaluation.written_subnets import WrittenDraft, WrittenSubnets
from hwsearch.machine import available_memory_bytes
from hwsearch.models.convert import Converter, blocks_of
from hwsearch.models.exported import Exported
from hwsearch.models.onnx_file import PRECISIONS, write_model
from hwsearch.models.quantize import CALIBRATED, Calibration, check_converter
from hwsearch.models.repeated_weights import timing_model
from hwsearch.precision import WHOLE, options_of
from hwsearch.quantization import INT8, MIXED, quantization_for
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

if TYPE_CHECKING:
    from hwsearch.evaluation.recalibrated_modules import ModuleDraft, RecalibratedModules

# A model, the recalibrated subnet (None: the model has repeated weights) and the build time in s.
Built = tuple[onnx.ModelProto, Exported | None, float]
# Ranges do not depend on it; small, so that all activations of a large subnet fit.
RANGE_BATCH = 25
_CALIBRATIONS_KEPT = 256
SHARE_OF_MEMORY = 0.1  # of what is available when the first model is built
SHARE_OF_DISK = 0.1  # of the free space in the temporary folder then


class Builder:
    """Builds models in the device's precision, which may be used on another machine.

    Batch statistics, and the ranges of int8 activations, come from the task's calibration.

    Attributes:
        calibration_digest: Digest of the calibration samples; None without recalibration.
        context: What else determines a file, such as ``"fp32"``.
        refined: Architectures whose weights are refined: see `Supernet.refined_model`.
    """

    def __init__(self, net: Supernet, device: Device, task: Task) -> None:
        check_conversion(net, device, task)
        self._net, self._precision = net, file_precision(device.precision)
        self._run_in = None if self._precision == device.precision else device.precision
        options = options_of(net.precision, self._precision)
        self._calibration = task.calibration if INT8 in options else None
        self._calibrated: OrderedDict[tuple[Architecture, bool], Calibration] = OrderedDict()
        calibration = task.calibration if net.recalibrate else None
        self.calibration_digest = None if calibration is None else calibration.digest
        self.refined: set[Architecture] = set()
        self._subnets = _subnets(net, task, self.refined)
        self._quantization = quantization_for(device.fingerprint())
        self.context = self._precision + (f" run in {self._run_in}" if self._run_in else "")
        if self._calibration is not None:
            samples = f"{len(self._calibration)}@{self._calibration.digest}"
            self.context += f" ({self._quantization}, {CALIBRATED}: {samples})"

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
        for draft in self._subnets.drafts(archs):
            yield draft if isinstance(draft, EvaluationError) else attempt(self._finish, draft)

    def _repeat_weights(self, arch: Architecture) -> Built:
        begin = time.perf_counter()
        model = timing_model(self._net, arch, self._precision, self._quantization)
        return model, None, time.perf_counter() - begin

    def _finish(self, draft: "ModuleDraft | WrittenDraft") -> Built:
        if draft.error is not None:
            raise draft.error
        begin = time.perf_counter()
        fp32 = draft.float32()
        model = self._convert(draft.arch, fp32)
        exported = draft.exported(model, None if model is fp32 else fp32, self._run_in)
        return model, exported, draft.cost_s + time.perf_counter() - begin

    def _convert(self, arch: Architecture, model: onnx.ModelProto) -> onnx.ModelProto:
        convert = Converter(
            quantization=self._quantization, calibrate=partial(self._calibrate, arch)
        )
        precisions = self._net.precisions(arch) or {WHOLE: self._precision}
        return convert(model, precisions, blocks_of(self._net, model))

    def _calibrate(self, arch: Architecture, model: onnx.ModelProto) -> Calibration:
        """Return what int8 takes from samples, which does not depend on precisions."""
        assert self._calibration is not None
        key, kept = (self._net.structure(arch), arch in self.refined), self._calibrated
        if key not in kept:
            batches = InputBatches(self._calibration, RANGE_BATCH, self._net.input_spec(arch))
            digest = self._calibration.digest
            kept[key] = Calibration.of(model, batches, self._quantization, digest)
        kept.move_to_end(key)
        while len(kept) > _CALIBRATIONS_KEPT:
            kept.popitem(last=False)
        return kept[key]


def _subnets(
    net: Supernet, task: Task, refined: Collection[Architecture]
) -> "RecalibratedModules | WrittenSubnets":
    if net.writes_onnx:
        return WrittenSubnets(net, task, refined)
    # It loads PyTorch, which elastic models are searched without.
    from hwsearch.evaluation.recalibrated_modules import RecalibratedModules

    return RecalibratedModules(net, task)


def check_chosen(net: Supernet, device: Device) -> None:
    """Refuse a device of one precision where it is a choice, and of any where it is none."""
    if device.precision == MIXED and net.precision is None:
        raise InputError(
            f"device {device.spec!r} takes files of any precision, and none is chosen; give "
            "precision 'fp32,int8', or leave the device's away"
        )
    if device.precision != MIXED and net.precision is not None:
        raise InputError(
            f"precision is to be chosen among {', '.join(net.precision.options)}, and device "
            f"{device.spec!r} takes {device.precision} files alone; give it precision=mixed, "
            "where it has that, or search for each precision alone"
        )


def check_conversion(net: Supernet, device: Device, task: Task) -> None:
    """Refuse a device whose precision is unknown, or lacks a converter or calibration samples."""
    check_chosen(net, device)
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
    if INT8 in options_of(net.precision, device.precision) and task.calibration is None:
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

    def refine(self, arch: Architecture, *, refined: bool = True) -> None:
        """Build the model of an architecture with refined weights from now on, or without."""
        (self._builder.refined.add if refined else self._builder.refined.discard)(arch)
        if (entry := self._entries.pop(arch, None)) is not None:
            entry.path.unlink(missing_ok=True)

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
            memory_bytes += exported.weight_bytes
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
