"""Building of recalibrated subnets and their models, which are timed, scored and exported."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import onnx
from numpy.typing import NDArray
from torch import nn

from hwsearch.accuracy.prefix_recalibration import (
    Chained,
    Recalibrated,
    chain_of,
    recalibrate_together,
)
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.accuracy.statistics_cache import StatisticsCache
from hwsearch.accuracy.task import Task
from hwsearch.blocks import Block
from hwsearch.devices import Device
from hwsearch.errors import DataError, EvaluationError
from hwsearch.evaluation.conversion import Conversion
from hwsearch.files import is_of_disk
from hwsearch.models.artifact import Exported
from hwsearch.models.export import to_onnx
from hwsearch.models.repeated_weights import with_repeated_weights
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A recalibrated subnet with its model, and its share of the build time in seconds."""

    exported: Exported
    cost_s: float


def raised(result: T | EvaluationError) -> T:
    """Return a result; raise it if it is an error."""
    if isinstance(result, EvaluationError):
        raise result
    return result


class Builder:
    """Builds models in the device's precision; batch statistics come from the task's calibration.

    Attributes:
        calibration_digest: Digest of the calibration samples; None without recalibration.
        context: What else determines a file, such as ``"fp32"``.
    """

    def __init__(self, net: Supernet, device: Device, task: Task) -> None:
        self._net, self._task = net, task
        self._calibration = task.calibration if net.recalibrate else None
        self.calibration_digest: str | None = None
        if self._calibration is not None:
            self.calibration_digest = self._calibration.digest
        self._known = StatisticsCache(net.recalibrate)
        self._precision = device.precision
        self._convert = Conversion(net, device, task)
        self.context = self._convert.context

    def build(self, archs: Sequence[Architecture]) -> Iterator[Built | EvaluationError]:
        """Yield a built subnet, or the error of building it, for each architecture in order.

        Results do not depend on which architectures are built together.

        Raises:
            DataError: The calibration samples cannot be read.
        """
        drafts: dict[Architecture, _Draft | EvaluationError] = {
            arch: attempt(self._draft, arch) for arch in archs
        }
        drafts |= self._recalibrated([d for d in drafts.values() if isinstance(d, _Draft)])
        for draft in drafts.values():
            yield draft if isinstance(draft, EvaluationError) else attempt(self._finished, draft)

    def _draft(self, arch: Architecture) -> "_Draft":
        begin = time.perf_counter()
        subnet, spec, blocks = self._net.subnet(arch), self._net.input_spec(arch), None
        if len(spec.inputs) == 1:
            blocks = chain_of(subnet, self._net.blocks(arch), self._net.recalibrate)
        return _Draft(arch, subnet, spec, blocks, cost_s=time.perf_counter() - begin)

    def _recalibrated(
        self, drafts: Sequence["_Draft"]
    ) -> "dict[Architecture, _Draft | EvaluationError]":
        """Recalibrate chains with the same inputs together, others alone; reuse cached results."""
        new = [d for d in drafts if not self._known.restore(d.arch, d.subnet)]
        done = {d.arch: attempt(self._recalibrate, d) for d in new if d.blocks is None}
        chains: dict[InputSpec, list[_Draft]] = {}
        for draft in new:
            if draft.blocks is not None:
                chains.setdefault(draft.spec, []).append(draft)
        for spec, group in chains.items():
            given = [Chained(subnet=each.subnet, blocks=each.blocks or []) for each in group]
            batches = self._calibration_batches(spec)
            results = recalibrate_together(given, self._net.recalibrate, batches)
            for draft, result in zip(group, results, strict=True):
                done[draft.arch] = attempt(self._charge, draft, result)
        for each in done.values():
            if isinstance(each, _Draft):
                self._known.keep(each.arch, each.subnet)
        return done

    def _recalibrate(self, draft: "_Draft") -> "_Draft":
        begin = time.perf_counter()
        batches = self._calibration_batches(draft.spec)
        recalibrate(draft.subnet, self._net.recalibrate, batches)
        took_s = time.perf_counter() - begin
        return draft.with_cost(took_s)

    def _charge(self, draft: "_Draft", result: Recalibrated | Exception) -> "_Draft":
        if isinstance(result, Exception):
            raise result
        return draft.with_cost(result.cost_s)

    def _finished(self, draft: "_Draft") -> Built:
        begin, arch, subnet = time.perf_counter(), draft.arch, draft.subnet
        fp32 = to_onnx(self._net, arch, subnet, calibration=self.calibration_digest)
        model = self._convert(arch, fp32)
        original = None if model is fp32 else fp32
        return Built(
            exported=Exported(arch=arch, subnet=subnet, model=model, original=original),
            cost_s=draft.cost_s + time.perf_counter() - begin,
        )

    def model_to_time(self, arch: Architecture) -> onnx.ModelProto:
        """Return a model with the latency of the built one, but without its statistics.

        Latency does not depend on weights; see `hwsearch.models.repeated_weights`. An int8 model
        takes its ranges from the calibration samples nevertheless.
        """
        if self._precision == "int8":
            (built,) = self.build([arch])
            return raised(built).exported.model
        return raised(attempt(self._with_repeated_weights, arch))

    def _with_repeated_weights(self, arch: Architecture) -> onnx.ModelProto:
        return self._convert(arch, with_repeated_weights(to_onnx(self._net, arch)))

    def _calibration_batches(self, spec: InputSpec) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the inputs anew each time: all preprocessed inputs would not fit into memory."""
        if self._calibration is not None:
            batches = self._calibration.batches(self._task.calibration_batch, spec)
            yield from (fed for fed, _ in batches)


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """A subnet that is being built; ``blocks`` is None unless it is recalibrated as a chain."""

    arch: Architecture
    subnet: nn.Module
    spec: InputSpec
    blocks: Sequence[Block] | None
    cost_s: float

    def with_cost(self, seconds: float) -> "_Draft":
        return replace(self, cost_s=self.cost_s + seconds)


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
