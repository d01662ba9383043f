"""Subnets whose network writes their ONNX models itself, such as those of an elastic model."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import onnx

from hwsearch.accuracy.input_batches import MOST_SAMPLES, InputBatches
from hwsearch.accuracy.task import Task
from hwsearch.models.export import refined_to_onnx, to_onnx
from hwsearch.models.exported import ExportedSlice
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

_BATCH = 64


@dataclass(slots=True, eq=False)
class WrittenDraft:
    """A subnet that is being built; ``refined`` takes the weights of `OnnxNetwork.refined`."""

    net: Supernet
    task: Task
    arch: Architecture
    refined: bool
    cost_s: float = 0.0
    error: Exception | None = None

    def float32(self) -> onnx.ModelProto:
        """Write the model."""
        if self.refined:
            spec, samples = self.net.input_spec(self.arch), self.task.calibration
            batches = InputBatches(samples, _BATCH, spec, MOST_SAMPLES)
            return refined_to_onnx(self.net, self.arch, batches)
        return to_onnx(self.net, self.arch)

    def exported(
        self, model: onnx.ModelProto, original: onnx.ModelProto | None, run_in: str | None
    ) -> ExportedSlice:
        """Return the subnet with its model; see `hwsearch.models.exported.Exported`."""
        return ExportedSlice(
            arch=self.arch, model=model, original=original, run_in=run_in, net=self.net
        )


class WrittenSubnets:
    """Subnets of one supernet; those in ``refined`` have weights refined on samples."""

    def __init__(self, net: Supernet, task: Task, refined: Container[Architecture]) -> None:
        self._net, self._task, self._refined = net, task, refined

    def drafts(self, archs: Sequence[Architecture]) -> list[WrittenDraft]:
        """Return what the models of architectures are written from."""
        return [WrittenDraft(self._net, self._task, a, a in self._refined) for a in archs]
