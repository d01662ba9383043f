"""Scoring of subnets: outcomes on the samples of a split."""

import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import Metric
from hwsearch.accuracy.task import SplitSamples
from hwsearch.devices import Device
from hwsearch.devices.base import SharedInference
from hwsearch.errors import DeviceError, EvaluationError
from hwsearch.prefix_tree import PrefixNode
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

# Large enough for several CPUs, small enough for the allocator to reuse its memory.
SCORE_BATCH = 64
GROUP_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Result of one subnet on some samples.

    ``outcomes`` are (n,), unscaled, in the order of the samples; ``cost_s`` is the time taken.
    """

    outcomes: NDArray[Any]
    cost_s: float


def prefix_groups(net: Supernet, archs: Iterable[Architecture]) -> list[list[Architecture]]:
    """Group architectures by equal first blocks; the subnets of a group fit into memory."""
    tree = PrefixNode[Architecture]()
    for arch in archs:
        tree.insert((key, arch) for key in _prefix_keys(net, arch))
    ordered = [arch for node in tree.descendants() for arch in node.ends]
    return [ordered[at : at + GROUP_SIZE] for at in range(0, len(ordered), GROUP_SIZE)]


def _prefix_keys(net: Supernet, arch: Architecture) -> list[Hashable]:
    """Return the input and the blocks of a subnet."""
    try:
        blocks = net.blocks(arch) or []
    except Exception:  # noqa: BLE001 - the error is reported when it is built
        return [None]
    return [net.input_spec(arch).inputs, *((block.name, block.spec) for block in blocks)]


class Scorer:
    """Runs subnets over samples, those with a common prefix together.

    On a device with `hwsearch.devices.base.SharedInference` the samples of a group are read once,
    and the common prefix of its models is run once; on others the subnets take turns.
    """

    def __init__(self, net: Supernet, device: Device, metric: Metric) -> None:
        self._net, self._device, self._metric = net, device, metric

    def score(
        self,
        models: Mapping[Architecture, Path],
        samples: SplitSamples,
    ) -> dict[Architecture, Scored | EvaluationError]:
        """Score the ONNX files of architectures on samples, which may not be empty.

        A sample's outcome depends neither on the other samples nor on the other models. An error
        of the runtime or the metric is returned in place of outcomes.

        Raises:
            DataError: The samples cannot be read.
        """
        if not len(samples):
            raise EvaluationError("there are no samples to score")
        found: dict[Architecture, Scored | EvaluationError] = {}
        for group in prefix_groups(self._net, models):
            given = {arch: models[arch] for arch in group}
            if isinstance(self._device, SharedInference):
                found |= self._together(self._device, given, samples)
            else:
                found |= {a: self._alone(a, model, samples) for a, model in given.items()}
        return {arch: found[arch] for arch in models}

    def estimate_cost_s(self, arch: Architecture, model: Path, samples: SplitSamples) -> float:
        """Estimate the time of scoring one subnet by itself, from the first few samples."""
        spec = self._net.input_spec(arch)
        for few, targets in islice(samples.batches(SCORE_BATCH, spec), 1):
            self._answer(arch, model, few)  # loads the model
            begin = time.perf_counter()
            self._answer(arch, model, few)
            return (time.perf_counter() - begin) * len(samples) / len(targets)
        return 0.0

    def _answer(self, arch: Architecture, model: Path, batch: Mapping[str, NDArray[Any]]) -> None:
        if isinstance(self._device, SharedInference):
            list(self._device.run_shared({arch.key: model}, [batch]))
        else:
            list(self._device.run(model, [batch]))

    def _together(
        self, device: SharedInference, models: Mapping[Architecture, Path], samples: SplitSamples
    ) -> dict[Architecture, Scored | EvaluationError]:
        """Score models with the same inputs at once; one by one if the runtime breaks down."""
        by_spec: dict[InputSpec, dict[Architecture, Path]] = {}
        for arch, model in models.items():
            by_spec.setdefault(self._net.input_spec(arch), {})[arch] = model
        found: dict[Architecture, Scored | EvaluationError] = {}
        for spec, given in by_spec.items():
            try:
                found |= self._shared(device, given, samples, spec)
            except DeviceError:
                found |= {a: self._alone(a, model, samples) for a, model in given.items()}
        return found

    def _shared(
        self,
        device: SharedInference,
        models: Mapping[Architecture, Path],
        samples: SplitSamples,
        spec: InputSpec,
    ) -> dict[Architecture, Scored | EvaluationError]:
        tallies = {arch: _Tally(self._metric, spec.outputs) for arch in models}
        waiting: deque[NDArray[Any]] = deque()
        begin = time.perf_counter()
        named = {arch.key: model for arch, model in models.items()}
        for answers in device.run_shared(named, _fed(samples, spec, waiting)):
            targets, took = waiting.popleft(), time.perf_counter() - begin
            for arch, tally in tallies.items():
                tally.cost_s += took * answers.shares.get(arch.key, 0.0)
                tally.add(answers.outputs[arch.key], targets)
            begin = time.perf_counter()
        return {arch: tally.result() for arch, tally in tallies.items()}

    def _alone(
        self, arch: Architecture, model: Path, samples: SplitSamples
    ) -> Scored | EvaluationError:
        spec = self._net.input_spec(arch)
        tally, begin = _Tally(self._metric, spec.outputs), time.perf_counter()
        waiting: deque[NDArray[Any]] = deque()
        try:
            for outputs in self._device.run(model, _fed(samples, spec, waiting)):
                tally.add(outputs, waiting.popleft())
                if tally.error is not None:
                    return tally.error
        except EvaluationError as error:
            return error
        tally.cost_s = time.perf_counter() - begin
        return tally.result()


class _Tally:
    """Outcomes of one subnet so far, or the error."""

    def __init__(self, metric: Metric, declared: Sequence[str]) -> None:
        self._metric, self._declared = metric, declared
        self.parts: list[NDArray[Any]] = []
        self.cost_s = 0.0
        self.error: EvaluationError | None = None

    def add(self, outputs: list[NDArray[Any]] | DeviceError, targets: NDArray[Any]) -> None:
        if isinstance(outputs, DeviceError):
            self.error = outputs
        if self.error is None and not isinstance(outputs, DeviceError):
            try:
                found = self._metric.outcomes(outputs, targets, self._declared)
                self.parts.append(found)
            except EvaluationError as error:
                self.error = error

    def result(self) -> Scored | EvaluationError:
        if self.error is not None:
            return self.error
        return Scored(outcomes=np.concatenate(self.parts), cost_s=self.cost_s)


def _fed(
    samples: SplitSamples, spec: InputSpec, waiting: deque[NDArray[Any]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the inputs of each batch; append its targets to ``waiting``."""
    for inputs, targets in samples.batches(SCORE_BATCH, spec):
        waiting.append(targets)
        yield inputs
