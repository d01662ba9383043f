"""Answers of the original model: its outputs on the samples of each split."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.answer_metrics import ANSWER_METRICS, answer_metric, default_metrics
from hwsearch.accuracy.answered_samples import AnsweredSamples, stored
from hwsearch.accuracy.metric import TOP1, UNDECIDED, Answers
from hwsearch.accuracy.original import Feeds, Run, doubts
from hwsearch.accuracy.task import SplitSamples, Task
from hwsearch.errors import EvaluationError, InputError
from hwsearch.files import DISK_ERRNOS
from hwsearch.machine import available_memory_bytes
from hwsearch.models.input_spec import token_role
from hwsearch.supernets.interface import InputSpec

ANSWER_BATCH = 64
SHARE_OF_MEMORY = 0.125  # of what is available, for the answers of one split


def answered(
    task: Task,
    spec: InputSpec,
    original: Run | Mapping[str, Mapping[str, NDArray[Any]]],
    digest: str,
    objectives: Sequence[str] = (),
    folder: Path | None = None,
) -> Task:
    """Return a task whose samples have the original's answers, and the metrics that need them.

    Doubts about what the original answers are added to its warnings.

    Args:
        task: A task with or without labels.
        spec: Inputs and outputs of the original.
        original: Runs the original; or its outputs, split (``search`` and ``report``) -> output
            name -> (n, ...) array.
        digest: Identifies the original, or the arrays.
        objectives: Names of the search's objectives; the task's metrics among them come first. By
            default the metric of a task with labels is its own, else `default_metrics` decides.
        folder: For answers that memory does not hold; by default that of temporary files. The
            files have no name, and vanish with the process.

    Raises:
        InputError: The original cannot be run, its outputs are not finite or do not suit the
            objectives, or there is no room for them.
    """
    if not task.scores:
        return task
    splits: dict[str, AnsweredSamples] = {}
    for split in ("search", "report"):
        samples = stored(getattr(task, split))
        what = f"data {task.spec!r}, split {split}"
        if isinstance(original, Mapping):
            outputs = _check_given(what, original[split], len(samples), spec)
            mask = _mask_of(samples, spec)
        else:
            outputs, mask = _outputs(what, original, samples, spec, folder)
        splits[split] = AnsweredSamples(samples, outputs, digest, mask)
    answers = splits["search"].part(slice(None))
    fields = _metrics(task, answers, spec, objectives)
    if not isinstance(original, Mapping):
        fields["warnings"] = (*task.warnings, *doubts(task, answers, spec, original))
    return replace(task, search=splits["search"], report=splits["report"], **fields)


def _metrics(
    task: Task, answers: Answers, spec: InputSpec, objectives: Sequence[str]
) -> dict[str, Any]:
    """Return ``metric`` and ``beside`` of a task with answers."""
    last = spec.preprocessing is not None and spec.preprocessing.layout == "NHWC"
    own = {metric.name: metric for metric in task.metrics if not metric.of_answers}
    if TOP1.name in objectives and not own:
        raise InputError(
            f"data {task.spec!r} has no labels, and objective {TOP1.name} needs them; leave it "
            f"out, or take one of {', '.join(ANSWER_METRICS)}"
        )
    chosen = [m.name for m in task.metrics if m.of_answers and m is not UNDECIDED]
    wanted = [name for name in objectives if name in own or name in ANSWER_METRICS]
    names = dict.fromkeys((*wanted, *own, *chosen, *default_metrics(answers, channels_last=last)))
    metric, *beside = (
        own[name] if name in own else answer_metric(name, answers, channels_last=last)
        for name in names
    )
    return {"metric": metric, "beside": tuple(beside)}


def _outputs(
    what: str, run: Run, samples: SplitSamples, spec: InputSpec, folder: Path | None
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Return the original's outputs on samples by name, and the mask of their tokens."""
    masks: list[NDArray[Any]] = []
    mask_name = mask_input(spec)

    def feeds() -> Iterator[Feeds]:
        for fed, _ in samples.batches(ANSWER_BATCH, spec):
            if mask_name is not None:
                masks.append(fed[mask_name])
            yield fed

    arrays: dict[str, NDArray[Any]] = {}
    done = 0
    try:
        for outputs in run(feeds()):
            found = _named(what, outputs, spec, done)
            if not arrays:
                arrays = _empty(what, found, len(samples), folder)
            for name, output in found.items():
                if output.shape[1:] != arrays[name].shape[1:]:
                    raise InputError(
                        f"{what}: output {name!r} of the original is of shape {output.shape[1:]} "
                        f"for sample {done}, and of shape {arrays[name].shape[1:]} before; "
                        "outputs whose shape depends on the sample cannot be compared"
                    )
                arrays[name][done : done + len(output)] = output
            done += len(next(iter(found.values())))
    except EvaluationError as error:
        raise InputError(f"{what}: the original model cannot be run: {error}") from error
    if done != len(samples):
        raise InputError(f"{what}: the original answered {done} of {len(samples)} samples")
    return arrays, np.concatenate(masks) if masks else None


def _mask_of(samples: SplitSamples, spec: InputSpec) -> NDArray[Any] | None:
    if (name := mask_input(spec)) is None:
        return None
    return np.concatenate([fed[name] for fed, _ in samples.batches(ANSWER_BATCH, spec)])


def mask_input(spec: InputSpec) -> str | None:
    """Return the name of the input that is 1 for tokens and 0 for padding, or None."""
    named = (t.name for t in spec.inputs if len(t.shape) == 1 and token_role(t.name) == "mask")
    return next(named, None)


def _named(
    what: str, outputs: Sequence[NDArray[Any]], spec: InputSpec, start: int
) -> dict[str, NDArray[Any]]:
    """Return outputs by name, floating-point ones as float32, or raise for what they hold."""
    if len(outputs) != len(spec.outputs):
        raise InputError(
            f"{what}: the original has {len(outputs)} outputs, and {len(spec.outputs)} are "
            f"declared: {', '.join(spec.outputs)}"
        )
    found = {}
    for name, output in zip(spec.outputs, outputs, strict=True):
        array = np.asarray(output)
        if array.dtype.kind not in "fiub" or not array.ndim:
            raise InputError(
                f"{what}: output {name!r} of the original is {array.dtype} of shape "
                f"{array.shape}; numbers for each sample are needed"
            )
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if bad.any():
                raise InputError(
                    f"{what}: output {name!r} of the original holds NaN or infinite numbers for "
                    f"sample {start + int(np.argmax(bad))}; look at that sample, and whether "
                    "inputs are prepared as the model expects"
                )
        found[name] = array
    if len({len(array) for array in found.values()}) > 1:
        raise InputError(
            f"{what}: the original's outputs are for different numbers of samples: "
            f"{ {name: len(array) for name, array in found.items()} }"
        )
    return found


def _empty(
    what: str, first: Mapping[str, NDArray[Any]], n: int, folder: Path | None
) -> dict[str, NDArray[Any]]:
    """Return arrays for n samples, in memory, or in files where they take too much of it."""
    shapes = {name: (n, *array.shape[1:]) for name, array in first.items()}
    sizes = {name: math.prod(shapes[name]) * first[name].itemsize for name in first}
    if sum(sizes.values()) <= SHARE_OF_MEMORY * available_memory_bytes():
        return {name: np.empty(shapes[name], first[name].dtype) for name in first}
    at = folder if folder is not None else Path(tempfile.gettempdir())
    needed, free = sum(sizes.values()), shutil.disk_usage(at).free
    remedy = (
        f"{what}: the original's outputs take {needed / 1e9:,.1f} GB, too much for memory, and "
        f"{str(at)!r} has {free / 1e9:,.1f} GB free; give fewer samples, or free space there"
    )
    if needed > free:
        raise InputError(remedy)
    found: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        try:
            with tempfile.TemporaryFile(dir=at) as file:
                # A sparse file would end in a signal where the disk is full.
                allocate = getattr(os, "posix_fallocate", _truncate)
                allocate(file.fileno(), 0, max(1, sizes[name]))
                found[name] = np.memmap(file, first[name].dtype, "r+", shape=shape)
        except OSError as error:
            if error.errno not in DISK_ERRNOS:
                raise
            raise InputError(remedy) from error
    return found


def _truncate(file: int, start: int, size: int) -> None:
    os.ftruncate(file, start + size)


def _check_given(
    what: str, answers: Mapping[str, NDArray[Any]], n: int, spec: InputSpec
) -> dict[str, NDArray[Any]]:
    """Return given answers in the declared order, or raise where they do not fit."""
    if lacking := [name for name in spec.outputs if name not in answers]:
        raise InputError(f"{what}: no answers for the output {', '.join(lacking)}")
    found = _named(what, [answers[name] for name in spec.outputs], spec, 0)
    if any(len(array) != n for array in found.values()):
        counts = {name: len(array) for name, array in found.items()}
        raise InputError(f"{what}: {n} samples, but answers for {counts}")
    return found
