"""Scoring of subnets: outcomes on the samples of a split."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import Metric, Targets
from hwsearch.accuracy.task import SplitSamples
from hwsearch.devices import Device
from hwsearch.devices.base import SharedInference, SharedOutputs
from hwsearch.devices.runtime import Feeds
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

    Attributes:
        outcomes: (n,), unscaled, in the order of the samples.
        cost_s: Time taken.
        beside: Metric that is scored beside -> its outcomes, (n,).
    """

    outcomes: NDArray[Any]
    cost_s: float
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def prefix_groups(net: Supernet, archs: Iterable[Architecture]) -> list[list[Architecture]]:
    """Group architectures of equal inputs by equal first blocks.

    The subnets of a group fit into memory.
    """
    groups: list[list[Architecture]] = []
    trees: dict[InputSpec, PrefixNode[Architecture]] = {}
    for arch in archs:
        try:
            spec, blocks = net.input_spec(arch), net.blocks(arch) or []
        except Exception:  # noqa: BLE001 - the error is reported when it is built
            groups.append([arch])
            continue
        keys = [None, *((block.name, block.spec) for block in blocks)]
        trees.setdefault(spec, PrefixNode()).insert((key, arch) for key in keys)
    for tree in trees.values():
        ordered = [arch for node in tree.descendants() for arch in node.ends]
        groups += [ordered[at : at + GROUP_SIZE] for at in range(0, len(ordered), GROUP_SIZE)]
    return groups


class Scorer:
    """Runs subnets over samples, those with a common prefix together.

    On a device with `hwsearch.devices.base.SharedInference` the samples of a group are read once,
    and the common prefix of its models is run once; on others the subnets take turns.
    """

    def __init__(
        self, net: Supernet, device: Device, metric: Metric, beside: Sequence[Metric] = ()
    ) -> None:
        self._net, self._device = net, device
        self._metrics = (metric, *beside)

    def score(
        self, models: Mapping[Architecture, Path], samples: SplitSamples
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
            found |= self._scored(given, samples, self._net.input_spec(group[0]))
        return {arch: found[arch] for arch in models}

    def estimate_cost_s(self, arch: Architecture, model: Path, samples: SplitSamples) -> float:
        """Estimate the time of scoring one subnet by itself, from the first few samples."""
        if not len(samples):
            return 0.0
        device, begin = self._device, 0.0
        run = device.run_shared if isinstance(device, SharedInference) else self._run_one
        few, targets = next(samples.batches(SCORE_BATCH, self._net.input_spec(arch)))
        for _ in range(2):  # the first run loads the model
            begin = time.perf_counter()
            list(run({arch.key: model}, [few]))
        return (time.perf_counter() - begin) * len(samples) / len(targets)

    def _scored(
        self, models: Mapping[Architecture, Path], samples: SplitSamples, spec: InputSpec
    ) -> dict[Architecture, Scored | EvaluationError]:
        """Score models with the same inputs at once; one by one if the runtime breaks down."""
        if isinstance(self._device, SharedInference):
            with suppress(DeviceError):
                return self._outcomes(self._device.run_shared, models, samples, spec)
        found: dict[Architecture, Scored | EvaluationError] = {}
        for arch, model in models.items():
            try:
                found |= self._outcomes(self._run_one, {arch: model}, samples, spec)
            except EvaluationError as error:
                found[arch] = error
        return found

    def _run_one(
        self, models: Mapping[str, Path], batches: Iterable[Feeds]
    ) -> Iterator[SharedOutputs]:
        ((key, model),) = models.items()
        for outputs in self._device.run(model, batches):
            yield SharedOutputs(outputs={key: outputs}, shares={key: 1.0})

    def _outcomes(
        self,
        run: Callable[[Mapping[str, Path], Iterable[Feeds]], Iterator[SharedOutputs]],
        models: Mapping[Architecture, Path],
        samples: SplitSamples,
        spec: InputSpec,
    ) -> dict[Architecture, Scored | EvaluationError]:
        names = [metric.name for metric in self._metrics]
        parts: dict[Architecture, dict[str, list[NDArray[Any]]]] = {
            arch: {name: [] for name in names} for arch in models
        }
        costs_s = dict.fromkeys(models, 0.0)
        errors: dict[Architecture, EvaluationError] = {}
        waiting: deque[Targets] = deque()

        def batches() -> Iterator[Feeds]:
            for inputs, targets in samples.batches(SCORE_BATCH, spec):
                if len(errors) == len(models):
                    return
                waiting.append(targets)
                yield inputs

        begin = time.perf_counter()
        for answers in run({arch.key: model for arch, model in models.items()}, batches()):
            targets, took_s = waiting.popleft(), time.perf_counter() - begin
            for arch in models:
                outputs = answers.outputs[arch.key]
                costs_s[arch] += took_s * answers.shares.get(arch.key, 0.0)
                if isinstance(outputs, DeviceError):
                    errors[arch] = outputs
                elif arch not in errors:
                    try:
                        for metric in self._metrics:
                            found = metric.outcomes(outputs, targets, spec.outputs)
                            parts[arch][metric.name].append(found)
                    except EvaluationError as error:
                        errors[arch] = error
            begin = time.perf_counter()
        return {
            arch: errors.get(arch) or _scored(names, parts[arch], costs_s[arch]) for arch in models
        }


def _scored(
    names: Sequence[str], parts: Mapping[str, list[NDArray[Any]]], cost_s: float
) -> Scored:
    first, *beside = names
    return Scored(
        outcomes=np.concatenate(parts[first]),
        cost_s=cost_s,
        beside={name: np.concatenate(parts[name]) for name in beside},
    )
