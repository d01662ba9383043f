"""Checks of arrays (names, shapes, values), and of the outputs that a metric scores."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.answered_samples import first_targets, stored
from hwsearch.accuracy.decoding import crop_size, image_preprocess, image_preprocessing
from hwsearch.accuracy.images import ImageSamples
from hwsearch.accuracy.metric import TOP1, UNDECIDED, Targets
from hwsearch.accuracy.task import SPLITS, UNLABELLED, Preprocess, Samples, Task
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.export import to_onnx
from hwsearch.models.onnx_file import write_model
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet

_ROWS = 4096  # per check: a mask of a whole large array would take much memory
SAMPLES = 2  # that check the outputs


def samples_of(
    what: str, arrays: Mapping[str, NDArray[Any]], spec: InputSpec, *, labelled: bool = True
) -> Samples:
    """Return the samples of one split, with class indices as targets.

    ``arrays`` maps input name -> (n, ...) array in the network's input format, or (n, height,
    width, channels) uint8 images, and ``target`` -> (n,) class indices, which is left out where
    the samples are not ``labelled``. Messages begin with ``what``.

    Raises:
        InputError: An array is missing, or does not fit the network or the others, or a sample
            holds NaN, an infinite number or a number out of range.
    """
    names = [tensor.name for tensor in spec.inputs]
    needed = (*names, "target") if labelled else names
    lacking = [name for name in needed if name not in arrays]
    if lacking:
        raise InputError(
            f"{what}: no array {', '.join(lacking)}; it has {', '.join(arrays) or 'none'}"
        )
    inputs = {name: arrays[name] for name in names}
    preprocess: dict[str, Preprocess] = {}
    for tensor in spec.inputs:
        array, expected = inputs[tensor.name], tensor.shape
        if array.dtype == np.uint8 and spec.preprocessing is not None:
            preprocessing = image_preprocessing(spec)
            preprocess[tensor.name] = image_preprocess(preprocessing, tensor.dtype)
            if preprocessing.layout == "NCHW":
                expected = (*tensor.shape[1:], tensor.shape[0])
        elif array.dtype.name != tensor.dtype:
            raise InputError(f"{what}: {tensor.name} is {array.dtype}, not {tensor.dtype}")
        if array.shape[1:] != expected:
            raise InputError(
                f"{what}: {tensor.name} holds samples of shape {array.shape[1:]}, not {expected}"
            )
    if labelled:
        targets = arrays["target"]
        check_classes(what, targets, len(spec.classes))
    else:
        targets = np.full(len(inputs[names[0]]), UNLABELLED)
    _check_numbers(what, inputs, targets, spec)
    return Samples(inputs, targets.astype(np.int64), preprocess)


def check_task(task: Task, spec: InputSpec) -> None:
    """Check the arrays of a task that a user's function returned; raise as `samples_of` does.

    Targets may be of any type where the metric is not top1.
    """
    for split in SPLITS:
        samples = getattr(task, split)
        if not isinstance(samples, Samples):
            continue
        what = f"data {task.spec!r}, split {split}"
        targets = np.asarray(samples.targets)
        if task.metric.per_sample is TOP1.per_sample and split != "calibration":
            check_classes(what, targets, len(spec.classes))
        _check_numbers(what, samples.inputs, targets, spec)
        if len(samples):
            _check_fed(what, samples, spec)


def _check_fed(what: str, samples: Samples, spec: InputSpec) -> None:
    """Raise InputError where the first sample cannot be fed to the network."""
    try:
        fed, _ = next(samples.batches(1, spec))
    except InputError:
        raise
    except Exception as error:
        # Code of a user may raise any error.
        raise InputError(
            f"{what}: its preprocess raised {type(error).__name__}: {error}"
        ) from error
    names = [tensor.name for tensor in spec.inputs]
    if sorted(fed) != sorted(names):
        raise InputError(
            f"{what}: its inputs are {', '.join(fed)}, and the network's {', '.join(names)}"
        )
    for tensor in spec.inputs:
        if fed[tensor.name].dtype.name != tensor.dtype:
            raise InputError(
                f"{what}: {tensor.name} is fed as {fed[tensor.name].dtype}, not {tensor.dtype}"
            )


def check_classes(what: str, targets: NDArray[Any], classes: int) -> None:
    """Raise InputError unless targets are (n,) integers from 0 up to ``classes`` (0 if unknown).

    The message begins with ``what`` and names the first bad sample.
    """
    if targets.ndim != 1:
        raise InputError(f"{what}: target has shape {targets.shape}, not (n,)")
    if targets.dtype.kind not in "biu":
        raise InputError(f"{what}: target is {targets.dtype}, not whole numbers")
    rows = np.flatnonzero((targets < 0) | (targets >= (classes or np.inf)))
    if len(rows):
        allowed = f"there are {classes} classes, 0 to {classes - 1}"
        raise InputError(
            f"{what}: target {targets[rows[0]]}, but "
            f"{allowed if classes else 'classes count from 0'}: sample {rows[0]}{_more(rows)}"
        )


def _check_numbers(
    what: str, inputs: Mapping[str, NDArray[Any]], targets: NDArray[Any], spec: InputSpec
) -> None:
    """Raise InputError for unequal lengths, and for numbers that are not finite or in range."""
    arrays = {**inputs, "target": targets}
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{what}: arrays of different lengths: {lengths}")
    highs = {tensor.name: tensor.high for tensor in spec.inputs}
    for name, array in arrays.items():
        high = highs.get(name) if array.dtype.kind in "iu" else None
        if array.dtype.kind not in "fc" and high is None:
            continue
        if rows := _bad_rows(array, high):
            bad = "NaN or infinite numbers; repair these samples or leave them out"
            if high is not None:
                bad = f"numbers that are not from 0 to {high - 1}"
            raise InputError(f"{what}: {name} of sample {rows[0]}{_more(rows)} holds {bad}")


def _bad_rows(array: NDArray[Any], high: int | None) -> list[int]:
    found: list[int] = []
    for start in range(0, len(array), _ROWS):
        part = array[start : start + _ROWS]
        bad = ~np.isfinite(part) if high is None else (part < 0) | (part >= high)
        found += (start + np.flatnonzero(bad.reshape(len(part), -1).any(axis=1))).tolist()
    return found


def _more(rows: "NDArray[Any] | list[int]") -> str:
    return f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""


def check_outputs(net: Supernet, task: Task) -> None:
    """Score two samples with the smallest subnet before recalibration.

    A subnet that cannot be built or run is ignored; its trial fails.

    Raises:
        InputError: The network does not return its declared outputs, does not declare the one that
            is scored, or the metric cannot score it.
    """
    if not task.scores or task.metric is UNDECIDED:
        return
    arch = net.space.smallest()[0]
    spec = net.input_spec(arch)
    if isinstance(stored(task.search), ImageSamples):
        crop_size(net.input_spec(net.space.largest()[0]))  # raises for unsupported inputs
        targets: Targets = first_targets(task.search, SAMPLES)
        fed = {n: drawn[: len(targets)] for n, drawn in probe_inputs(spec.inputs).items()}
    else:
        fed, targets = next(task.search.batches(SAMPLES, spec))
    try:
        of_names = _run(net, arch, {tensor.name: fed[tensor.name] for tensor in spec.inputs})
    except Exception:  # noqa: BLE001 - code of a plugin; its trial reports the error
        return
    try:
        # Before recalibration outputs may overflow.
        outputs = [np.nan_to_num(each) for each in of_names(spec.outputs)]
        _check_width(task, spec, task.metric.scored(outputs, spec.outputs))
        task.metric.outcomes(outputs, targets, spec.outputs)
    except (InputError, EvaluationError) as error:
        raise InputError(f"supernet {net.name!r} and data {task.spec!r}: {error}") from error


def _run(
    net: Supernet, arch: Architecture, inputs: dict[str, NDArray[Any]]
) -> Callable[[Sequence[str]], list[NDArray[Any]]]:
    """Run a subnet; return a function from declared names to outputs, which may refuse the names.

    A model that its network writes has these outputs in order.
    """
    if not net.writes_onnx:
        # It loads PyTorch, which elastic models are searched without.
        from hwsearch.models.module_outputs import module_run

        return module_run(net.subnet(arch), inputs)
    from hwsearch.devices import load_device

    with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
        path = Path(scratch) / "model.onnx"
        write_model(path, to_onnx(net, arch))
        with closing(load_device("ort-cpu")) as device:
            (outputs,) = device.run(path, [inputs])
    return lambda _: list(outputs)


def _check_width(task: Task, spec: InputSpec, scored: list[NDArray[Any]]) -> None:
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
