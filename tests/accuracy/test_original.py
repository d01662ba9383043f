"""Doubts about the original: preprocessing and classes that do not fit it."""

from dataclasses import replace

import numpy as np
import pytest

from hwsearch import load_task
from hwsearch.accuracy.answers import answered
from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.task import UNLABELLED, Samples, Task
from hwsearch.models.preprocessing import preprocessing_of
from hwsearch.supernets.interface import InputSpec, TensorSpec
from tests.accuracy.folders import save

SHAPE = (3, 6, 6)
# Mean of each channel, 0 to 255, of each class.
COLOURS = np.array([[20, 30, 50], [60, 120, 200], [200, 110, 50], [230, 240, 220]])


def spec_of(preprocess):
    return InputSpec(
        inputs=(TensorSpec(name="image", shape=SHAPE),),
        preprocessing=preprocessing_of(preprocess, SHAPE),
        classes=tuple("abcd"),
    )


def network(preprocess):
    """A function that knows the nearest colour where pixels are prepared in one way."""
    prepared = image_preprocess(preprocessing_of(preprocess, SHAPE))(
        COLOURS[:, None, None, :].astype(np.uint8)
    )[:, :, 0, 0]

    def run(batches):
        for fed in batches:
            means = fed["image"].mean(axis=(2, 3))
            near = -np.square(means[:, None] - prepared).sum(axis=2)
            yield [20 * near / np.square(prepared).mean()]

    return run


def task_of(spec, labelled=True, n=80):
    targets = np.arange(n) % 4
    noise = np.random.default_rng(0).integers(-15, 15, (n, 6, 6, 3))
    images = (COLOURS[targets][:, None, None] + noise).astype(np.uint8)
    prepare = {"image": image_preprocess(spec.preprocessing)}
    given = Samples({"image": images}, targets if labelled else np.full(n, UNLABELLED), prepare)
    metric = {"metric": TOP1} if labelled else {}
    return Task(spec="mine", search=given, report=given, **metric)


def warnings(stated, needed, labelled=True, **options):
    spec = spec_of(stated)
    return answered(task_of(spec, labelled, **options), spec, network(needed), "abc").warnings


@pytest.mark.parametrize("needed", ["imagenet", "0..1", "-1..1", "0..255", "0..255,colour=BGR"])
@pytest.mark.parametrize("labelled", [True, False])
def test_preprocessing_that_fits_is_not_doubted(needed, labelled):
    assert warnings(needed, needed, labelled) == ()


@pytest.mark.parametrize("needed", ["0..255", "0..255,colour=BGR"])
def test_preprocessing_that_would_be_better_is_named(needed):
    (doubt,) = warnings("imagenet", needed)
    assert f"with preprocessing {needed!r} it is right on 100% of 64 of them" in doubt
    assert doubt.endswith(f"hwsearch elastify --preprocess {needed}")


def test_accuracy_of_chance_is_doubted_whatever_the_reason():
    spec = spec_of("0..1")
    wrong = task_of(spec)
    labels = np.random.default_rng(0).integers(0, 4, 80)
    search = replace(wrong.search, targets=labels)
    found = answered(replace(wrong, search=search), spec, network("0..1"), "abc")
    (doubt,) = found.warnings
    assert "no better than the most frequent class (" in doubt
    assert "(now: RGB, mean 0, 0, 0 and std 1, 1, 1 of pixels from 0 to 1)" in doubt
    assert "order of classes" in doubt


def test_the_same_answer_to_all_is_doubted():
    (doubt,) = warnings("imagenet", "0..255", labelled=False)
    assert "answers class 0 to 100% of 80 samples" in doubt
    assert "check how inputs are prepared (now: RGB, mean 0.485" in doubt


def test_equal_probabilities_are_doubted():
    spec = spec_of("0..1")

    def unsure(batches):
        for fed in batches:
            yield [0.1 * fed["image"].mean(axis=(2, 3))[:, [0, 1, 2, 0]]]

    (doubt,) = answered(task_of(spec, labelled=False), spec, unsure, "abc").warnings
    assert "nearly equal probabilities to all 4 classes (entropy 100% of theirs)" in doubt


def test_few_samples_and_other_outputs_are_not_doubted():
    assert warnings("imagenet", "0..255", n=20) == ()
    spec = replace(spec_of("0..1"), outputs=("embedding",))

    def embed(batches):
        for fed in batches:
            yield [np.ones((len(fed["image"]), 8), np.float32) * fed["image"][:, 0, 0, :1]]

    assert answered(task_of(spec, labelled=False), spec, embed, "abc").warnings == ()


def test_image_files_are_tried_too(tmp_path):
    for name, colour in zip("abcd", COLOURS, strict=True):
        for i in range(30):
            save(tmp_path / name / f"{i}.png", tuple(colour.tolist()))
    spec = spec_of("-1..1")
    task = load_task(f"imagefolder:{tmp_path}", spec, "any", labels="optional")
    found = answered(task, spec, network("0..255"), "abc")
    (doubt,) = found.warnings
    assert "'0..255'" in doubt
