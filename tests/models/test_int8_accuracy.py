"""Ranges by error and corrected biases bring int8 outputs nearer to those of float32."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import EvaluationError
from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.bias_correction import bias_shifts, corrected_biases
from hwsearch.models.clipping import Histogram, clipped_ranges
from hwsearch.models.execution import run
from hwsearch.models.int8_numbers import activation_scales
from hwsearch.models.qdq import Int8Writer, activations
from hwsearch.quantization import Quantization

U8, S8 = Quantization(activations="uint8"), Quantization(activations="int8")


def model_of(nodes, constants, sample, made, opset=17):
    """A model from x to y, with named constants."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *sample])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *made])],
        [
            numpy_helper.from_array(np.asarray(a, np.float32), name)
            for name, a in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def relu():
    return model_of([helper.make_node("Relu", ["x"], ["y"], "relu")], {}, [None], [None])


def normal_with_outlier(seed, value=30.0, n=20):
    arrays = np.random.default_rng(seed).normal(size=(n, 1, 45_000)).astype(np.float32)
    arrays[1, 0, 7] = value
    return [{"x": each} for each in arrays]


def error(values, ends, how):
    """The mean squared error of what the writer would make of values."""
    scale, point = activation_scales("x", ends, how)
    info = np.iinfo(point.dtype)
    integers = np.clip(np.rint(values / scale) + point, info.min, info.max)
    return float(np.mean(((integers - float(point)) * scale - values) ** 2))


@pytest.mark.parametrize("how", [U8, S8], ids=str)
def test_one_outlier_does_not_set_the_range(how):
    batches = normal_with_outlier(0)
    found, count = clipped_ranges(relu(), ["x", "y"], batches, how)
    largest, _ = activation_ranges(relu(), ["x", "y"], batches)
    held = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    assert count == 20
    assert error(held, found["x"], how) < error(held, largest["x"], how) / 5
    assert found["y"][0] == 0


@pytest.mark.parametrize("how", [U8, S8], ids=str)
def test_no_range_on_a_grid_loses_less(how):
    """The expected error of the chosen range is that of the best one by trying all."""
    rng = np.random.default_rng(2)
    values = rng.laplace(size=(1, 60_000)).astype(np.float32)
    values[values < 0] *= 0.3
    found, _ = clipped_ranges(relu(), ["x"], [{"x": values}], how)
    low, high = float(values.min()), float(values.max())
    grid = np.linspace(0.05, 1, 40)
    pairs = [(low * a, high * b) for a in grid for b in grid]
    best = min(error(values, pair, how) for pair in pairs)
    assert error(values, found["x"], how) < 1.02 * best
    assert best < 0.95 * error(values, (low, high), how)


def test_even_values_keep_their_range():
    values = np.random.default_rng(3).uniform(-1, 2, (1, 50_000)).astype(np.float32)
    found, _ = clipped_ranges(relu(), ["x", "y"], [{"x": values}], U8)
    assert found["x"] == pytest.approx((-1, 2), abs=0.02)
    assert found["y"] == pytest.approx((0, 2), abs=0.02)


def test_exact_zeros_do_not_count_as_rounded():
    """Many zeros, which int8 holds, must not make the range of the others smaller."""
    values = np.zeros((1, 40_000), np.float32)
    values[0, ::100] = np.random.default_rng(4).uniform(0, 1, 400)
    found, _ = clipped_ranges(relu(), ["x"], [{"x": values}], U8)
    assert found["x"][1] > 0.97


def test_bins_widen_without_losing_counts():
    rng, one, parts = np.random.default_rng(5), Histogram(), Histogram()
    batches = [rng.normal(0, s, 5000).astype(np.float32) for s in (0.01, 1, 40)]
    for each in batches:
        parts.add(each, each.min(), each.max())
    whole = np.concatenate(batches)
    one.add(whole, whole.min(), whole.max())
    assert parts.range(symmetric=False) == pytest.approx(one.range(symmetric=False), rel=0.1)


def test_ranges_lie_within_the_extremes_and_repeat():
    batches = normal_with_outlier(6)
    found, _ = clipped_ranges(relu(), ["x", "y"], batches, U8)
    largest, _ = activation_ranges(relu(), ["x", "y"], batches)
    for name, (low, high) in found.items():
        assert largest[name][0] <= low <= high <= largest[name][1]
    assert clipped_ranges(relu(), ["x", "y"], batches, U8)[0] == found


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constant_activations(value):
    batch = {"x": np.full((2, 10), value, np.float32)}
    found, _ = clipped_ranges(relu(), ["x"], [batch], U8)
    assert error(batch["x"], found["x"], U8) < 1e-8


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_ranges_that_are_not_finite_are_refused_by_name(value):
    batches = normal_with_outlier(7, value)
    found, _ = clipped_ranges(relu(), ["x"], batches, U8)
    with pytest.raises(
        EvaluationError, match=r"x has values from .* which no scale of int8 holds"
    ):
        activation_scales("x", found["x"], U8)


def test_no_samples():
    with pytest.raises(EvaluationError, match="no samples to calibrate int8 ranges with"):
        clipped_ranges(relu(), ["x"], [], U8)
    with pytest.raises(EvaluationError, match="no samples to correct biases"):
        bias_shifts(depthwise(), [], U8)


def depthwise(opset=17):
    """Padded convolutions whose small weights all round the same way, and a Gemm behind."""
    first, second = np.full((4, 1, 3, 3), 0.0017), np.full((6, 4, 1, 1), 0.0019)
    first[:, 0, 1, 1], second[:, 0] = 1, 1  # the step is 1 / 127, and the others become 0
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias1"], ["a"], "a", group=4, pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], "b"),
        helper.make_node("Conv", ["b", "second", "bias2"], ["c"], "c", strides=[2, 2]),
        helper.make_node("Flatten", ["c"], ["d"], "d"),
        helper.make_node("Gemm", ["d", "third", "bias3"], ["y"], "y", transB=1),
    ]
    third = np.full((4, 54), 0.0021)
    third[:, 0] = 1
    constants = {"first": first, "second": second, "third": third}
    constants |= {"bias1": np.ones(4), "bias2": np.zeros(6), "bias3": np.ones(4)}
    return model_of(nodes, constants, [4, 6, 6], [4], opset)


def images(seed, n=3):
    rng = np.random.default_rng(seed)
    return [{"x": rng.uniform(0.5, 1, (8, 4, 6, 6)).astype(np.float32)} for _ in range(n)]


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("how", [U8, S8], ids=str)
def test_means_are_those_of_float32(how, opset):
    model, batches, held = depthwise(opset), images(0), images(1)
    ranges, _ = activation_ranges(model, activations(model), batches)
    shifts = bias_shifts(model, batches, how)
    assert {name: each.shape for name, each in shifts.items()} == {"a": (4,), "c": (6,), "y": (4,)}

    def mean_error(biases=None):
        int8 = Int8Writer(model, ranges, how, biases).write()
        onnx.checker.check_model(int8, full_check=True)
        pairs = [(run(model, each)["y"], run(int8, each)["y"]) for each in held]
        return np.abs(np.mean([ours - theirs for ours, theirs in pairs], axis=(0, 1))).max()

    assert mean_error(corrected_biases(model, shifts)) < mean_error() / 5


def test_shift_is_the_mean_error_of_the_rounded_weights_with_padding():
    model, batches = depthwise(), images(2)
    (weight,) = (numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "first")
    rounded = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=4, pads=[1] * 4)],
        {"w": weight - np.rint(weight * 127) / 127},
        [4, 6, 6],
        [4, 6, 6],
    )
    lost = np.mean([run(rounded, each)["y"].mean(axis=(0, 2, 3)) for each in batches], axis=0)
    assert bias_shifts(model, batches, U8)["a"] == pytest.approx(lost, rel=1e-4)


def test_biases_that_are_shared_computed_scaled_or_absent_stay_as_they_are():
    eye = np.eye(4) + 0.0019
    nodes = [
        helper.make_node("Gemm", ["x", "w", "own"], ["a"], "a"),
        helper.make_node("Gemm", ["a", "w", "shared"], ["b"], "b"),
        helper.make_node("Gemm", ["b", "w", "a"], ["c"], "c"),
        helper.make_node("Gemm", ["c", "w", "half"], ["d"], "d", beta=0.5),
        helper.make_node("Gemm", ["d", "w"], ["e"], "e"),
        helper.make_node("Gemm", ["e", "w", "shared"], ["y"], "y"),
    ]
    biases = {name: np.zeros(4) for name in ("own", "shared", "half")}
    model = model_of(nodes, {"w": eye, **biases}, [4], [4])
    shifts = bias_shifts(model, [{"x": np.ones((2, 4), np.float32)}], U8)
    assert set(shifts) == {"a", "b", "y"}
    corrected = corrected_biases(model, shifts)
    assert set(corrected) == {"own"}
    assert corrected["own"] == pytest.approx(shifts["a"])
    assert corrected["own"].any()


def test_scalar_constants_are_quantised():
    model = model_of([helper.make_node("Mul", ["x", "half"], ["y"], "m")], {"half": 0.5}, [3], [3])
    ranges = {"x": (0.0, 1.0), "y": (0.0, 0.5)}
    int8 = Int8Writer(model, ranges, U8).write()
    found = run(int8, {"x": np.ones((1, 3), np.float32)})["y"]
    assert found == pytest.approx(np.full((1, 3), 0.5), abs=0.01)
