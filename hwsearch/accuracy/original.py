"""Doubts about the original model's answers, such as preprocessing that does not fit it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.answered_samples import stored
from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.accuracy.images import ImageSamples
from hwsearch.accuracy.metric import TOP1, Answers, mean_interval, paired_difference
from hwsearch.accuracy.output_kinds import OF_CLASSES, kind_of
from hwsearch.accuracy.subsets import spread, spread_rows
from hwsearch.accuracy.task import Samples, SplitSamples, Task
from hwsearch.errors import HwsearchError
from hwsearch.models.preprocessing import NAMED, preprocessing_of
from hwsearch.supernets.interface import ImagePreprocessing, InputSpec

TRIED = 64  # images by which other preprocessing is tried
FEWEST = 30  # samples below which nothing is doubted
POOR = 0.5  # accuracy below which other preprocessing is tried
BETTER = 0.1  # gain of accuracy for other preprocessing to be named
UNIFORM = 0.9  # entropy, of that of equal probabilities
ONE_ANSWER = 0.95  # share of samples with the same answer

Feeds = Mapping[str, NDArray[Any]]
# Runs the original: batches of its inputs -> its outputs of each, in the declared order.
Run = Callable[[Iterable[Feeds]], Iterable[Sequence[NDArray[Any]]]]


def doubts(task: Task, answers: Answers, spec: InputSpec, run: Run) -> tuple[str, ...]:
    """Return doubts about answers to the search samples, one sentence each.

    Accuracies near that of the most frequent class, probabilities near equal ones, and the same
    answer to all samples come from preprocessing or classes that do not fit. Other conventions for
    pixels are tried where accuracy is poor.
    """
    name = _class_output(answers)
    if name is None or len(answers) < FEWEST:
        return ()
    scores = answers.outputs[name]
    what = f"data {task.spec!r}: the original model"
    if task.labelled and any(m.per_sample is TOP1.per_sample for m in task.metrics):
        return _of_labels(what, answers.labels, scores, stored(task.search), spec, run)
    found = []
    prepared = f"check how inputs are prepared{_stated(spec)}"
    chosen = np.bincount(scores.argmax(axis=1))
    if (share := chosen.max() / len(scores)) > ONE_ANSWER:
        found.append(
            f"{what} answers class {chosen.argmax()} to {share:.0%} of {len(scores)} samples; "
            f"{prepared}"
        )
    if (entropy := _entropy(name, scores)) > UNIFORM:
        found.append(
            f"{what} gives nearly equal probabilities to all {scores.shape[1]} classes (entropy "
            f"{entropy:.0%} of theirs); {prepared}"
        )
    return tuple(found)


def _class_output(answers: Answers) -> str | None:
    """Return the first (n, classes) output of scores or probabilities."""
    for name, array in answers.outputs.items():
        if array.ndim == 2 and array.shape[1] > 1 and kind_of(name, array).kind in OF_CLASSES[:2]:
            return name
    return None


def _entropy(name: str, scores: NDArray[Any]) -> float:
    """Return the mean entropy of class probabilities, relative to that of equal ones."""
    values = scores.astype(np.float64)
    if kind_of(name, scores).kind == "scores":
        values = np.exp(values - values.max(axis=1, keepdims=True))
    p = np.clip(values / values.sum(axis=1, keepdims=True), 1e-12, None)
    return float(-(p * np.log(p)).sum(axis=1).mean() / np.log(scores.shape[1]))


def _stated(spec: InputSpec) -> str:
    found = spec.preprocessing
    if found is None:
        return ""
    mean, std = (", ".join(f"{n:.4g}" for n in numbers) for numbers in (found.mean, found.std))
    return f" (now: {found.colour}, mean {mean} and std {std} of pixels from 0 to 1)"


def _of_labels(
    what: str,
    labels: NDArray[Any],
    scores: NDArray[Any],
    samples: SplitSamples,
    spec: InputSpec,
    run: Run,
) -> tuple[str, ...]:
    correct = scores.argmax(axis=1) == labels
    chance = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    mean, low, _ = mean_interval(correct)
    better = "" if mean > POOR else _better(correct, samples, spec, run, scores.shape[1])
    right = f"{what} is right on"
    if low > chance:
        return (f"{right} {mean:.0%} of {len(labels)} samples; {better}",) if better else ()
    prepared = better or f"check how inputs are prepared{_stated(spec)}, and the order of classes"
    return (
        f"{right} {mean:.1%} of {len(labels)} samples, no better than the most frequent class "
        f"({chance:.1%}); {prepared}",
    )


def _better(
    correct: NDArray[Any], samples: SplitSamples, spec: InputSpec, run: Run, classes: int
) -> str:
    """Return a sentence on preprocessing with which more is right; empty if none is found."""
    few, rows = _pixels(samples), spread_rows(len(samples), TRIED)
    if few is None or spec.preprocessing is None:
        return ""
    best, gain = "", BETTER
    for text, tried in _alternatives(spec, spec.preprocessing):
        try:
            right = _correct(few, replace(spec, preprocessing=tried), run, classes)
        except HwsearchError:
            return ""  # it is said where the model is run on all samples
        difference, low, _ = paired_difference(right, correct[rows])
        if low > 0 and difference > gain:
            gain = difference
            best = (
                f"with preprocessing {text!r} it is right on {right.mean():.0%} of {len(rows)} of "
                f"them instead of {correct[rows].mean():.0%}; make it elastic again by "
                f"hwsearch elastify --preprocess {text}"
            )
    return best


def _pixels(samples: SplitSamples) -> ImageSamples | Samples | None:
    """Return evenly spaced samples; None where they are no pixels."""
    few = spread(samples, TRIED)
    if isinstance(few, ImageSamples) or (isinstance(few, Samples) and few.preprocess):
        return few
    return None


def _alternatives(
    spec: InputSpec, now: ImagePreprocessing
) -> Iterator[tuple[str, ImagePreprocessing]]:
    """Yield other conventions for pixels, as users state them."""
    for colour in ("", ",colour=BGR") if len(now.mean) == 3 else ("",):
        for name in NAMED:
            tried = preprocessing_of(name + colour, spec.inputs[0].shape, now.layout)
            tried = replace(tried, resize=now.resize)
            if tried != now:
                yield name + colour, tried


def _correct(
    few: "ImageSamples | Samples", spec: InputSpec, run: Run, classes: int
) -> NDArray[Any]:
    """Return which of some samples the original has right with another preprocessing."""
    if isinstance(few, Samples) and spec.preprocessing is not None:
        prepare = image_preprocess(spec.preprocessing, spec.inputs[0].dtype)
        few = replace(few, preprocess={spec.inputs[0].name: prepare})
    found = []
    feeds = (fed for fed, _ in few.batches(TRIED, spec))
    for outputs in run(feeds):
        scores = next(o for o in outputs if o.ndim == 2 and o.shape[1] == classes)
        found.append(scores.argmax(axis=1))
    return np.asarray(np.concatenate(found) == few.targets)
