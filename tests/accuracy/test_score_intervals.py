import numpy as np
import pytest
from scipy import stats

from hwsearch.accuracy.metric import TOP1, Metric, mean_interval, paired_difference
from hwsearch.accuracy.scoring import Scored
from hwsearch.accuracy.task import Samples, Task
from hwsearch.errors import EvaluationError, InputError
from hwsearch.evaluation.measurements import score_measurement


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Wilson, 95%: 8 of 10 from Agresti & Coull (1998); the ends by hand: z^2 / (n + z^2).
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (50, 100, 0.4038315, 0.5961685),
        (1, 1, 0.2065493, 1.0),
    ],
)
def test_wilson_interval(correct, n, low, high):
    outcomes = np.arange(n) < correct
    value, below, above = mean_interval(outcomes)
    assert value == correct / n
    assert below == pytest.approx(low, abs=1e-6)
    assert above == pytest.approx(high, abs=1e-6)
    assert below <= value <= above


def test_wilson_interval_is_scipys():
    for correct, n in ((3, 7), (2250, 2500), (1, 400)):
        ends = stats.binomtest(correct, n).proportion_ci(method="wilson")
        _, low, high = mean_interval(np.arange(n) < correct)
        assert (low, high) == pytest.approx((ends.low, ends.high), abs=1e-9)


def test_wilson_interval_covers():
    """About 95% of samples of 200 have the true 0.9 within their interval."""
    draws = np.random.default_rng(0).random((2000, 200)) < 0.9
    ends = [mean_interval(draw) for draw in draws]
    assert 0.93 < np.mean([low <= 0.9 <= high for _, low, high in ends]) < 0.97


def test_interval_of_any_numbers():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    mean, low, high = mean_interval(values)
    half = 1.959963984540054 * np.std(values, ddof=1) / 2
    assert (mean, low, high) == pytest.approx((4.0, 4 - half, 4 + half))


def test_paired_difference():
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.3
    a, b = ~hard, ~hard & (rng.random(1000) < 0.95)
    mean, low, high = paired_difference(a, b, scale=100)
    difference = a.astype(float) - b
    half = 100 * 1.959963984540054 * difference.std(ddof=1) / np.sqrt(1000)
    assert mean == pytest.approx(100 * difference.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half))
    # The two intervals overlap, yet the same images show which one is better.
    assert mean_interval(a)[1] < mean_interval(b)[2]
    assert low > 0
    reverse = paired_difference(b, a, scale=100)
    assert reverse == pytest.approx((-mean, -high, -low))


def test_no_difference():
    a = np.array([True, False, True])
    assert paired_difference(a, a) == (0.0, 0.0, 0.0)


def test_top1():
    outputs = [np.asarray([[1, 2], [3, 0], [0, 5], [0, -1]], np.float32)]
    outcomes = TOP1.outcomes(outputs, np.array([1, 1, 1, 0]), ("scores",))
    np.testing.assert_array_equal(outcomes, [True, False, True, True])
    scored = Scored(outcomes=outcomes, cost_s=0.0)
    score = score_measurement("key", scored, TOP1, "context", "search")
    np.testing.assert_array_equal(score.samples, outcomes)
    assert score.value == 75.0
    assert score.low == pytest.approx(30.06418, abs=1e-4)
    assert score.high == pytest.approx(95.44127, abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers(bad):
    with pytest.raises(EvaluationError, match="outputs hold NaN or infinite"):
        TOP1.outcomes([np.array([[1, 2], [1, bad]])], np.array([0, 0]), ("scores",))


def test_outcomes_that_are_no_numbers():
    metric = Metric(name="ratio", per_sample=lambda outputs, targets: outputs[0][:, 0] * np.nan)
    with pytest.raises(EvaluationError, match="metric 'ratio' gave NaN"):
        metric.outcomes([np.array([[1, 2]])], np.array([0]), ("scores",))


def test_metric_of_a_strangers():
    """Mean error of a regression; a negative scale turns the interval's ends around."""
    metric = Metric(
        name="error",
        direction="min",
        scale=-2.0,
        per_sample=lambda outputs, targets: np.abs(outputs[0][:, 0] - targets),
    )
    outcomes = metric.outcomes([np.array([[1.0], [2.0], [4.0]])], np.zeros(3), ("scores",))
    np.testing.assert_array_equal(outcomes, [1, 2, 4])
    scored = Scored(outcomes=outcomes, cost_s=0.0)
    score = score_measurement("key", scored, metric, "context", "search")
    assert score.value == pytest.approx(-2 * 7 / 3)
    assert score.low < score.value < score.high


def samples(n):
    return Samples({"x": np.arange(n * 2.0).reshape(n, 2)}, np.arange(n), {"x": lambda x: -x})


def test_batches_are_preprocessed_in_order():
    parts = list(samples(7).batches(3))
    assert [len(targets) for _, targets in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([t for _, t in parts]), np.arange(7))
    fed = np.concatenate([inputs["x"] for inputs, _ in parts])
    np.testing.assert_array_equal(fed, -np.arange(14.0).reshape(7, 2))


def test_digest_of_samples():
    whole = samples(7)
    assert whole.digest == samples(7).digest
    changed = Samples(whole.inputs, whole.targets[::-1].copy(), {})
    other = Samples({"x": whole.inputs["x"] + 1e-9}, whole.targets, {})
    assert len({whole.digest, changed.digest, other.digest, samples(6).digest}) == 4


def test_task_needs_samples():
    with pytest.raises(InputError, match="data 'mine': its report split is empty"):
        Task(spec="mine", metric=TOP1, search=samples(2), report=samples(0))
