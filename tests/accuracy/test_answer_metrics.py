"""Metrics against the original's outputs, on numbers worked out by hand."""

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import entropy

from hwsearch.accuracy.answer_metrics import (
    answer_metric,
    default_metrics,
    mean_divergence,
    variance_of,
)
from hwsearch.accuracy.metric import TOP1, UNDECIDED, Answers
from hwsearch.accuracy.output_kinds import kind_of
from hwsearch.errors import EvaluationError, InputError

RNG = np.random.default_rng(0)


def answers(mask=None, **outputs):
    n = len(next(iter(outputs.values())))
    return Answers(np.full(n, -1), outputs, mask)


def outcomes(name, given, *outputs, **options):
    metric = answer_metric(name, given, **options)
    return metric.outcomes(list(outputs), given, tuple(given.outputs))


def scores(*shape):
    return RNG.normal(0, 3, shape).astype(np.float32)


def test_agreement_of_classes():
    original = np.array([[1, 2, 0], [3, 0, 1], [0, 0, 9]], np.float32)
    ours = np.array([[0, 9, 1], [0, 1, 0], [1, 2, 3]], np.float32)
    given = answers(logits=original)
    np.testing.assert_array_equal(outcomes("agreement", given, ours), [1, 0, 1])
    metric = answer_metric("agreement", given)
    assert (metric.direction, metric.unit, metric.scale) == ("max", "%", 100.0)


@pytest.mark.parametrize("as_probabilities", [False, True])
def test_kl_is_that_of_the_softmax(as_probabilities):
    original, ours = scores(7, 5), scores(7, 5)
    expected = rel_entr(softmax(original, axis=1), softmax(ours, axis=1)).sum(axis=1)
    if as_probabilities:
        original, ours = softmax(original, axis=1), softmax(ours, axis=1)
    given = answers(anything=original)
    np.testing.assert_allclose(outcomes("kl", given, ours), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outcomes("kl", given, original), 0, atol=1e-6)
    metric = answer_metric("kl", given)
    assert (metric.direction, metric.unit) == ("min", "nats")


def test_kl_of_log_probabilities_and_of_shifted_scores_is_the_same():
    original, ours = scores(6, 4), scores(6, 4)
    expected = outcomes("kl", answers(logits=original), ours)
    shifted = outcomes("kl", answers(logits=original + 7), ours - 3)
    np.testing.assert_allclose(shifted, expected, rtol=1e-4, atol=1e-5)
    logs = [log_softmax(each, axis=1) for each in (original, ours)]
    np.testing.assert_allclose(outcomes("kl", answers(x=logs[0]), logs[1]), expected, rtol=1e-4)


def test_kl_of_probabilities_that_are_zero_is_finite():
    original, ours = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[1, 2, 0]]
    assert (outcomes("kl", answers(p=original), ours) > 10).all()


def test_several_labels_are_compared_each_for_itself():
    original = np.array([[0.9, 0.2, 0.8], [0.1, 0.1, 0.2]], np.float32)
    ours = np.array([[0.6, 0.3, 0.4], [0.1, 0.1, 0.2]], np.float32)
    given = answers(p=original)
    np.testing.assert_allclose(outcomes("agreement", given, ours), [2 / 3, 1])
    p, q = original.astype(float), ours.astype(float)
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(axis=1)
    np.testing.assert_allclose(outcomes("kl", given, ours), expected, rtol=1e-5, atol=1e-7)


def test_classes_of_pixels_are_averaged():
    original, ours = scores(3, 5, 4, 6), scores(3, 5, 4, 6)
    same = (original.argmax(axis=1) == ours.argmax(axis=1)).mean(axis=(1, 2))
    given = answers(logits=original)
    np.testing.assert_allclose(outcomes("agreement", given, ours), same)
    pixels = rel_entr(softmax(original, axis=1), softmax(ours, axis=1)).sum(axis=1)
    expected = pixels.mean(axis=(1, 2))
    np.testing.assert_allclose(outcomes("kl", given, ours), expected, rtol=1e-4)
    last = [each.transpose(0, 2, 3, 1) for each in (original, ours)]
    found = outcomes("kl", answers(logits=last[0]), last[1], channels_last=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_padding_is_left_out():
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    original, ours = scores(2, 4, 8), scores(2, 4, 8)
    other = ours.copy()
    other[0, 2:] = 100 * scores(2, 8)
    for name, output in (("agreement", "logits"), ("kl", "logits"), ("fidelity", "hidden")):
        given = answers(mask, **{output: original})
        found = outcomes(name, given, ours)
        np.testing.assert_allclose(outcomes(name, given, other), found)
        without = answers(**{output: original})
        assert found[0] != outcomes(name, without, ours)[0]
    same = original.argmax(axis=2) == ours.argmax(axis=2)
    found = outcomes("agreement", answers(mask, logits=original), ours)
    np.testing.assert_allclose(found, [same[0, :2].mean(), same[1].mean()])


def test_fidelity_of_vectors_is_their_cosine():
    original, ours = scores(5, 16), scores(5, 16)
    norms = [np.linalg.norm(each, axis=1) for each in (original, ours)]
    cosine = (original * ours).sum(axis=1) / norms[0] / norms[1]
    given = answers(embedding=original)
    np.testing.assert_allclose(outcomes("fidelity", given, ours), cosine, rtol=1e-5)
    np.testing.assert_allclose(outcomes("fidelity", given, 9 * ours), cosine, rtol=1e-5)
    assert outcomes("fidelity", given, 0 * ours).tolist() == [0.0] * 5


def test_fidelity_of_values_is_the_explained_variance():
    original = np.array([[1.0], [2.0], [6.0]], np.float32)
    ours = np.array([[1.0], [3.0], [4.0]], np.float32)
    found = outcomes("fidelity", answers(price=original), ours)
    assert found.mean() == pytest.approx(1 - (0 + 1 + 4) / (4 + 1 + 9))
    mean = np.full_like(original, 3.0)
    assert outcomes("fidelity", answers(price=original), mean).mean() == pytest.approx(0)
    maps, others = scores(4, 2, 3, 3), scores(4, 2, 3, 3)
    variance = np.square(maps - maps.mean(axis=0)).sum() / 4
    found = outcomes("fidelity", answers(depth=maps), others)
    expected = 1 - np.square(maps - others).sum(axis=(1, 2, 3)) / variance
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_several_outputs_are_averaged_and_constant_ones_left_out():
    boxes, anchors = scores(4, 4), np.ones((4, 7), np.float32)
    given = answers(boxes=boxes, hidden=scores(4, 8), anchors=anchors)
    other = scores(4, 8)
    found = outcomes("fidelity", given, boxes, other, anchors + 1)
    alone = outcomes("fidelity", answers(hidden=given.outputs["hidden"]), other)
    np.testing.assert_allclose(found, (1 + alone) / 2, rtol=1e-5)


def test_integers_agree_where_they_are_equal():
    original, ours = np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 0]])
    given = answers(chosen=original)
    np.testing.assert_allclose(outcomes("agreement", given, ours), [1, 0.5])
    assert default_metrics(given) == ("agreement",)


def test_large_outputs_are_compared_in_parts(monkeypatch):
    original, ours = scores(9, 5, 4), scores(9, 5, 4)
    given = answers(hidden=original)
    whole = {name: outcomes(name, given, ours) for name in ("agreement", "kl", "fidelity")}
    monkeypatch.setattr("hwsearch.accuracy.answer_metrics.AT_A_TIME", 41)
    for name, found in whole.items():
        np.testing.assert_allclose(outcomes(name, given, ours), found)
    kind = kind_of("depth", original)
    np.testing.assert_allclose(
        variance_of(original, None, kind), np.square(original - original.mean(axis=0)).sum() / 9
    )


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ({"logits": scores(9, 10)}, ("kl", "agreement")),
        ({"output": scores(9, 10)}, ("kl", "agreement")),
        ({"496": softmax(scores(9, 10), axis=1)}, ("kl", "agreement")),
        ({"out": scores(9, 3, 4, 4)}, ("fidelity",)),
        ({"logits": scores(9, 3, 4, 4)}, ("kl", "agreement")),
        ({"sentence_embedding": scores(9, 32)}, ("fidelity",)),
        ({"last_hidden_state": scores(9, 6, 32)}, ("fidelity",)),
        ({"price": scores(9, 1)}, ("fidelity",)),
        ({"pred_boxes": scores(9, 4)}, ("fidelity",)),
        ({"logits": scores(9, 6, 4), "pred_boxes": scores(9, 6, 4)}, ("kl", "agreement")),
    ],
)
def test_metric_by_default(outputs, names):
    assert default_metrics(answers(**outputs)) == names


def test_vectors_of_length_one_are_no_scores():
    vectors = scores(9, 32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert default_metrics(answers(output=vectors)) == ("fidelity",)
    assert kind_of("output", vectors).kind == "vectors"


def test_the_user_may_take_vectors_for_scores():
    given = answers(features=scores(9, 32))
    assert outcomes("kl", given, given.outputs["features"]).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "outputs", "says"),
    [
        ("kl", {"price": scores(4, 1)}, r"kl needs scores of classes.*price float32 \(1,\)"),
        ("agreement", {"price": scores(4, 1)}, "take objective fidelity"),
        ("fidelity", {"n": np.arange(4)[:, None]}, "fidelity needs .* floating-point"),
        ("fidelity", {"n": np.ones((4, 3), np.float32)}, "that differ between samples"),
    ],
)
def test_metrics_that_do_not_suit(name, outputs, says):
    with pytest.raises(InputError, match=says):
        answer_metric(name, answers(**outputs))


def test_outputs_of_another_shape_fail_the_trial():
    given = answers(logits=scores(4, 3))
    with pytest.raises(EvaluationError, match=r"is of shape \(4, 2\), the original's of shape"):
        outcomes("kl", given, scores(4, 2))


def test_without_answers():
    metric = answer_metric("kl", answers(logits=scores(4, 3)))
    with pytest.raises(EvaluationError, match="'kl' compares with the original model's outputs"):
        metric.outcomes([scores(4, 3)], np.zeros(4, int), ("logits",))
    with pytest.raises(EvaluationError, match="once the original model's outputs are known"):
        UNDECIDED.outcomes([scores(4, 3)], answers(logits=scores(4, 3)), ("logits",))


def test_labels_beside_answers():
    output = np.eye(3, dtype=np.float32)
    given = Answers(np.array([0, 1, 1]), {"logits": output})
    np.testing.assert_array_equal(TOP1.outcomes([output], given, ("logits",)), [1, 1, 0])


def test_divergence_is_that_of_class_probabilities():
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert mean_divergence(logits, logits) == 0.0
    assert mean_divergence(logits + 7.0, logits) == pytest.approx(0.0, abs=1e-12)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    other = logits[::-1]
    expected = entropy(shares[0], shares[1]) / 2 + entropy(shares[1], shares[0]) / 2
    assert mean_divergence(other, logits) == pytest.approx(expected)
    assert mean_divergence(shares[::-1], shares) == pytest.approx(expected)  # given as shares
    assert np.isfinite(mean_divergence(np.eye(3)[::-1], np.eye(3)))
