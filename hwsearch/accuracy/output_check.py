"""Check before a search that the metric can score the network's outputs."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwsearch.accuracy.decoding import crop_size
from hwsearch.accuracy.images import ImageSamples
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.task import SplitSamples, Task
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.agreement import declared_outputs, probe_inputs
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

SAMPLES = 2


def check_outputs(net: Supernet, task: Task) -> None:
    """Score two samples with the smallest subnet before recalibration.

    A subnet that cannot be built or run is ignored; its trial fails.

    Raises:
        InputError: The network does not return its declared outputs, does not declare the one that
            is scored, or the metric cannot score it.
    """
    if not task.scores:
        return
    arch = net.space.smallest()[0]
    spec = net.input_spec(arch)
    if isinstance(task.search, ImageSamples):
        crop_size(net.input_spec(net.space.largest()[0]))  # raises for unsupported inputs
    inputs, targets = _few(task.search, spec)
    try:
        with torch.no_grad():
            result = net.subnet(arch)(*(torch.from_numpy(each) for each in inputs.values()))
    except Exception:  # noqa: BLE001 - code of a plugin; its trial reports the error
        return
    try:
        # Before recalibration outputs may overflow.
        declared = declared_outputs(result, spec.outputs).values()
        outputs = [np.nan_to_num(each.numpy()) for each in declared]
        _check_width(task, spec, task.metric.scored(outputs, spec.outputs))
        task.metric.outcomes(outputs, targets, spec.outputs)
    except (InputError, EvaluationError) as error:
        raise InputError(f"supernet {net.name!r} and data {task.spec!r}: {error}") from error


def _few(samples: SplitSamples, spec: InputSpec) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return inputs and targets of two samples; for files, random images."""
    if isinstance(samples, ImageSamples):
        targets = samples.targets[:SAMPLES]
        drawn = probe_inputs(spec.inputs)
        return {name: array[: len(targets)] for name, array in drawn.items()}, targets
    fed, targets = next(samples.batches(SAMPLES, spec))
    return {tensor.name: fed[tensor.name] for tensor in spec.inputs}, targets


def _check_width(task: Task, spec: InputSpec, scored: list[NDArray[Any]]) -> None:
    """Raise InputError where the number of class scores is not the number of classes."""
    if task.metric.per_sample is not TOP1.per_sample:
        return
    (scores,) = scored
    name = spec.outputs[spec.position(task.metric.output or "") or 0]
    n, classes = len(scores), len(spec.classes)
    if scores.ndim != 2 or (classes and scores.shape[1] != classes):
        raise InputError(
            f"output {name!r} has shape {scores.shape} for {n} samples, and {task.metric.name} "
            f"needs ({n}, {classes or 'classes'}): a score for each class"
        )
    highest = max((int(s.targets.max()) for s in (task.search, task.report)), default=0)
    if highest >= scores.shape[1]:
        raise InputError(
            f"output {name!r} scores {scores.shape[1]} classes, but the data has class {highest}"
        )
