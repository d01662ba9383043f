"""Recalibrated subnets and their models: what is timed, scored and shipped."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from hwsearch.devices import Device
from hwsearch.errors import DataError, EvaluationError
from hwsearch.evaluate.recalibrate import recalibrate
from hwsearch.evaluate.task import Task
from hwsearch.export.artifact import Exported
from hwsearch.export.model import to_onnx
from hwsearch.kit.tile import tiled
from hwsearch.run.conversion import Conversion
from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet

TOGETHER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A subnet and what it took to build it.

    Attributes:
        exported: The recalibrated subnet and its model.
        cost_s: Its share of the time, in seconds, recalibration included.
        calibrated: Calibration samples that were run for it; what several subnets have in common
            counts as the share of a whole run that it is.
    """

    exported: Exported
    cost_s: float
    calibrated: float


def alike(net: Supernet, archs: Sequence[Architecture]) -> list[list[Architecture]]:
    """Put architectures into groups to be evaluated together: those that begin alike.

    A group holds so few that their subnets fit into memory side by side.
    """
    chains = {arch: _chain(net, arch) for arch in archs}
    ordered = sorted(archs, key=chains.__getitem__)
    return [ordered[at : at + TOGETHER] for at in range(0, len(ordered), TOGETHER)]


def _chain(net: Supernet, arch: Architecture) -> tuple[str, ...]:
    """Write the blocks of a subnet down, so that it can be told who begins alike."""
    try:
        blocks = net.blocks(arch)
    except Exception:  # noqa: BLE001 - what is wrong with it is said when it is built
        return ()
    spec = str(net.input_spec(arch).inputs)
    return (spec, *(f"{block.name} {block.spec}" for block in blocks or ()))


class Builder:
    """Makes models of the device's precision out of architectures.

    Args:
        net: The supernet.
        device: What the models are for.
        task: Its calibration samples give the batch statistics.

    Attributes:
        calibration_digest: Of the samples that statistics come from; None where there are none.
        context: What decides how a file comes about besides them, such as ``"fp32"``.
    """

    def __init__(self, net: Supernet, device: Device, task: Task) -> None:
        self._net, self._task = net, task
        self._calibration = task.calibration if net.recalibrate else None
        self.calibration_digest: str | None = None
        if self._calibration is not None:
            self.calibration_digest = self._calibration.digest
        self._precision = device.precision
        self._convert = Conversion(net, device, task)
        self.context = self._convert.context

    def build(self, archs: Sequence[Architecture]) -> Iterator[Built | EvaluationError]:
        """Build subnets; who is built together makes no difference to what comes out.

        Yields:
            For each architecture in order: the subnet, or why it cannot be built, recalibrated,
            exported or converted.

        Raises:
            DataError: The calibration samples cannot be read.
        """
        for arch in archs:
            begin = time.perf_counter()
            try:
                exported = self._build(arch)
            except EvaluationError as error:
                yield error
            else:
                cost_s = time.perf_counter() - begin
                yield Built(exported=exported, cost_s=cost_s, calibrated=self._n_calibration())

    def model_to_time(self, arch: Architecture) -> onnx.ModelProto:
        """Return a model that takes the time of the built one, without its statistics.

        Weights do not decide how long a graph takes; see `hwsearch.kit.tile`. An int8 file gets
        its ranges from the calibration samples all the same.

        Raises:
            EvaluationError: The subnet cannot be built, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        if self._precision == "int8":
            (built,) = self.build([arch])
            if isinstance(built, EvaluationError):
                raise built
            return built.exported.model
        with _as_failure():
            return self._convert(arch, tiled(to_onnx(self._net, arch)))

    def _n_calibration(self) -> int:
        return 0 if self._calibration is None else len(self._calibration)

    def _build(self, arch: Architecture) -> Exported:
        with _as_failure():
            subnet = self._net.subnet(arch)
            recalibrate(subnet, self._net.recalibrate, self._calibration_batches(arch))
            fp32 = to_onnx(self._net, arch, subnet, calibration=self.calibration_digest)
            model = self._convert(arch, fp32)
        original = None if model is fp32 else fp32
        return Exported(arch=arch, subnet=subnet, model=model, original=original)

    def _calibration_batches(self, arch: Architecture) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the inputs anew for every subnet: preprocessed, all of them would fill memory."""
        if self._calibration is not None:
            size, spec = self._task.calibration_batch, self._net.input_spec(arch)
            yield from (fed for fed, _ in self._calibration.batches(size, spec))


@contextmanager
def _as_failure() -> Iterator[None]:
    """Turn whatever is raised into a trial's failure: a family is a stranger's code."""
    try:
        yield
    except (EvaluationError, DataError):
        raise
    except Exception as error:
        raise EvaluationError(f"{type(error).__name__}: {error}") from error
