"""Samples with the original's answers: where they come from, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from hwsearch.accuracy import answers as module
from hwsearch.accuracy.answered_samples import AnsweredSamples, first_targets, stored
from hwsearch.accuracy.answers import answered
from hwsearch.accuracy.metric import TOP1, Answers, Metric
from hwsearch.accuracy.task import UNLABELLED, Samples, Task
from hwsearch.errors import DeviceError, InputError
from hwsearch.supernets.interface import InputSpec, TensorSpec

SPEC = InputSpec(inputs=(TensorSpec(name="x", shape=(3,)),))
WEIGHTS = np.random.default_rng(1).normal(0, 2, (3, 4)).astype(np.float32)


def samples(n, seed, labels=None):
    x = np.random.default_rng(seed).normal(0, 1, (n, 3)).astype(np.float32)
    targets = np.full(n, UNLABELLED) if labels is None else np.arange(n) % labels
    return Samples({"x": x}, targets, {})


def task(labels=None, **options):
    metric = {"metric": TOP1} if labels else {}
    return Task(
        spec="mine",
        search=samples(130, 0, labels),
        report=samples(70, 1, labels),
        calibration=samples(9, 2),
        **{**metric, **options},
    )


def original(batches):
    for fed in batches:
        yield [fed["x"] @ WEIGHTS]


def twice(batches):
    for fed in batches:
        yield [fed["x"] @ WEIGHTS, fed["x"]]


def test_answers_are_the_originals_outputs_in_order():
    given = task()
    found = answered(given, SPEC, original, "abc")
    for split in ("search", "report"):
        before, after = getattr(given, split), getattr(found, split)
        parts = list(after.batches(50))
        assert [len(targets) for _, targets in parts] == [
            len(targets) for _, targets in before.batches(50)
        ]
        for fed, targets in parts:
            assert isinstance(targets, Answers)
            np.testing.assert_allclose(targets.outputs["logits"], fed["x"] @ WEIGHTS, rtol=1e-5)
            assert targets.outputs["logits"].dtype == np.float32
            assert (targets.labels == UNLABELLED).all()
    assert found.calibration is given.calibration
    assert stored(found.search) is given.search
    assert stored(given.search) is given.search


def test_metrics_without_labels():
    found = answered(task(), SPEC, original, "abc")
    assert [metric.name for metric in found.metrics] == ["kl", "agreement"]
    found = answered(task(), SPEC, original, "abc", objectives=("latency", "fidelity"))
    assert [metric.name for metric in found.metrics] == ["fidelity", "kl", "agreement"]
    ((fed, targets),) = found.search.batches(200)
    for metric, value in zip(found.metrics, (1, 0, 1), strict=True):
        outcomes = metric.outcomes([fed["x"] @ WEIGHTS], targets, ("logits",))
        np.testing.assert_allclose(outcomes, value, atol=1e-5)


def test_metrics_beside_labels():
    found = answered(task(labels=4), SPEC, original, "abc")
    assert [metric.name for metric in found.metrics] == ["top1", "kl", "agreement"]
    found = answered(task(labels=4), SPEC, original, "abc", objectives=["kl", "latency", "top1"])
    assert [metric.name for metric in found.metrics] == ["kl", "top1", "agreement"]
    own = Metric(name="mine", per_sample=lambda outputs, targets: targets)
    found = answered(task(labels=4, metric=own), SPEC, original, "abc")
    assert [metric.name for metric in found.metrics] == ["mine", "kl", "agreement"]


def test_answering_again_changes_nothing():
    once = answered(task(), SPEC, original, "abc")
    again = answered(once, SPEC, original, "abc")
    assert [m.name for m in again.metrics] == [m.name for m in once.metrics]
    assert stored(again.search) is stored(once.search)
    assert not isinstance(stored(again.search), AnsweredSamples)


def test_digest_is_of_samples_and_original():
    given = task()
    one, other = (answered(given, SPEC, original, digest) for digest in ("abc", "abd"))
    assert one.search.digest == answered(task(), SPEC, original, "abc").search.digest
    assert len({one.search.digest, other.search.digest, one.report.digest}) == 3
    assert len(one.search.digest) == 16


def test_answers_may_be_given():
    given = task()
    arrays = {
        split: {"logits": getattr(given, split).inputs["x"] @ WEIGHTS}
        for split in ("search", "report")
    }
    found = answered(given, SPEC, arrays, "abc")
    np.testing.assert_array_equal(found.report.answers["logits"], arrays["report"]["logits"])
    with pytest.raises(InputError, match=r"split report: 70 samples, but answers for .*130"):
        answered(given, SPEC, {**arrays, "report": arrays["search"]}, "abc")
    with pytest.raises(InputError, match="split search: no answers for the output logits"):
        answered(given, SPEC, {**arrays, "search": {}}, "abc")


def test_first_targets():
    found = answered(task(labels=3), SPEC, original, "abc")
    few = first_targets(found.search, 2)
    assert few.labels.tolist() == [0, 1]
    assert few.outputs["logits"].shape == (2, 4)
    assert first_targets(task(labels=3).search, 2).tolist() == [0, 1]


def test_answers_that_memory_does_not_hold_lie_in_files(monkeypatch, tmp_path):
    in_memory = answered(task(), SPEC, original, "abc")
    monkeypatch.setattr(module, "available_memory_bytes", lambda: 100)
    found = answered(task(), SPEC, original, "abc", folder=tmp_path)
    assert isinstance(found.search.answers["logits"], np.memmap)
    assert not list(tmp_path.iterdir())  # gone with the process
    for (_, a), (_, b) in zip(found.report.batches(7), in_memory.report.batches(7), strict=True):
        np.testing.assert_array_equal(a.outputs["logits"], b.outputs["logits"])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda at: type("", (), {"free": 10})())
    with pytest.raises(
        InputError, match=r"outputs take .* GB, too much for memory.*fewer samples"
    ):
        answered(task(), SPEC, original, "abc", folder=tmp_path)


def test_mask_of_tokens():
    inputs = ("input_ids", "attention_mask")
    spec = InputSpec(
        inputs=tuple(TensorSpec(name=n, shape=(5,), dtype="int64", high=9) for n in inputs),
        outputs=("last_hidden_state",),
    )
    masks = (np.arange(5) < np.arange(1, 4)[:, None]).astype(np.int64)
    ids = np.arange(15).reshape(3, 5) % 9
    tokens = Samples({"input_ids": ids, "attention_mask": masks}, np.full(3, -1), {})

    def encoder(batches):
        for fed in batches:
            yield [np.repeat(fed["input_ids"][..., None], 8, axis=2) * np.arange(8.0) + 2]

    found = answered(Task(spec="t", search=tokens, report=tokens), spec, encoder, "abc")
    assert [metric.name for metric in found.metrics] == ["fidelity"]
    ((_, targets),) = found.search.batches(8)
    np.testing.assert_array_equal(targets.mask, masks)
    given = dict.fromkeys(("search", "report"), found.search.answers)
    found = answered(Task(spec="t", search=tokens, report=tokens), spec, given, "abc")
    np.testing.assert_array_equal(found.report.mask, masks)


def test_objective_that_needs_labels():
    with pytest.raises(InputError, match=r"has no labels, and objective top1 needs them; .* kl"):
        answered(task(), SPEC, original, "abc", objectives=["top1", "latency"])


def refused(batches):
    list(batches)
    raise DeviceError("no kernel")


def some(batches):
    yield from list(original(batches))[:-1]


def not_finite(batches):
    for number, fed in enumerate(batches):
        out = fed["x"] @ WEIGHTS
        out[5, 2] = np.nan if number else 0
        yield [out]


def growing(batches):
    for number, fed in enumerate(batches):
        yield [np.ones((len(fed["x"]), 2 + number), np.float32)]


def texts(batches):
    for fed in batches:
        yield [np.full(len(fed["x"]), "cat")]


def one_for_all(batches):
    for fed in batches:
        yield [fed["x"] @ WEIGHTS, np.ones((3, 2), np.float32)]


@pytest.mark.parametrize(
    ("run", "outputs", "says"),
    [
        (refused, ("logits",), "the original model cannot be run: no kernel"),
        (some, ("logits",), "the original answered 128 of 130 samples"),
        (not_finite, ("logits",), "'logits' of the original holds NaN .* for sample 69"),
        (growing, ("logits",), r"shape \(3,\) for sample 64, and of shape \(2,\) before"),
        (texts, ("logits",), r"is <U3 of shape \(64,\); numbers for each"),
        (twice, ("logits",), "has 2 outputs, and 1 are declared: logits"),
        (one_for_all, ("a", "b"), "for different numbers of samples"),
    ],
)
def test_originals_that_cannot_answer(run, outputs, says):
    with pytest.raises(InputError, match=says) as caught:
        answered(task(), replace(SPEC, outputs=outputs), run, "abc")
    assert str(caught.value).startswith("data 'mine', split search: ")


def test_nothing_is_asked_without_data():
    from hwsearch import load_task

    none = load_task("none", SPEC, "any")
    assert answered(none, SPEC, refused, "abc") is none
