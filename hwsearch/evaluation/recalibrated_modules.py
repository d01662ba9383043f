"""Subnets that are PyTorch modules, with batch statistics of their own."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from torch import nn

from hwsearch.accuracy.input_batches import InputBatches
from hwsearch.accuracy.recalibrate import StatisticsCache, recalibrate_together
from hwsearch.accuracy.task import Task
from hwsearch.blocks import Block
from hwsearch.errors import EvaluationError
from hwsearch.evaluation.attempt import attempt
from hwsearch.models.export import to_onnx
from hwsearch.models.exported_module import ExportedModule
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet


@dataclass(slots=True, eq=False)
class ModuleDraft:
    """A subnet that is being built; ``blocks`` are None where it is no chain of one input."""

    net: Supernet
    arch: Architecture
    subnet: nn.Module
    spec: InputSpec
    blocks: Sequence[Block] | None
    calibration: str | None
    cost_s: float
    error: Exception | None = None

    def float32(self) -> onnx.ModelProto:
        """Export the model."""
        return to_onnx(self.net, self.arch, self.subnet, calibration=self.calibration)

    def exported(
        self, model: onnx.ModelProto, original: onnx.ModelProto | None, run_in: str | None
    ) -> ExportedModule:
        """Return the module with its model; see `hwsearch.models.exported.Exported`."""
        return ExportedModule(
            arch=self.arch, model=model, original=original, run_in=run_in, subnet=self.subnet
        )


class RecalibratedModules:
    """Subnets of one supernet, recalibrated by the task's calibration samples."""

    def __init__(self, net: Supernet, task: Task) -> None:
        self._net, self._task = net, task
        self._calibration = task.calibration if net.recalibrate else None
        self._statistics = StatisticsCache(net.recalibrate)

    def drafts(self, archs: Sequence[Architecture]) -> list[ModuleDraft | EvaluationError]:
        """Return the recalibrated subnets of architectures of equal inputs, or their errors."""
        drafts = [attempt(self._draft, arch) for arch in archs]
        self._recalibrate([draft for draft in drafts if isinstance(draft, ModuleDraft)])
        return drafts

    def _draft(self, arch: Architecture) -> ModuleDraft:
        begin = time.perf_counter()
        subnet, spec = self._net.subnet(arch), self._net.input_spec(arch)
        blocks = self._net.blocks(arch) if len(spec.inputs) == 1 else None
        digest = None if self._calibration is None else self._calibration.digest
        cost_s = time.perf_counter() - begin
        return ModuleDraft(self._net, arch, subnet, spec, blocks, digest, cost_s)

    def _recalibrate(self, drafts: Sequence[ModuleDraft]) -> None:
        new = [
            draft
            for draft in drafts
            if not self._statistics.restore(self._net.structure(draft.arch), draft.subnet)
        ]
        if not new:
            return
        chains = {draft.subnet: draft.blocks for draft in new}
        size, spec = self._task.calibration_batch, new[0].spec
        batches = InputBatches(self._calibration, size, spec)
        results = attempt(recalibrate_together, chains, self._net.recalibrate, batches)
        if isinstance(results, EvaluationError):
            results = [results] * len(new)
        for draft, result in zip(new, results, strict=True):
            if isinstance(result, Exception):
                draft.error = result
            else:
                draft.cost_s += result
                self._statistics.keep(self._net.structure(draft.arch), draft.subnet)
