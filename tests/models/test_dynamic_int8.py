"""Files of the writer equal those of ONNX Runtime's dynamic quantiser, for any set of nodes."""

import logging
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as peer

from hwsearch.errors import EvaluationError
from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.dynamic_int8 import DynamicInt8Writer
from hwsearch.models.execution import Session, run
from hwsearch.models.qdq import Int8Writer, activations
from hwsearch.quantization import Quantization
from tests.models.products import (
    behind_constants,
    encoder,
    every_product,
    left_alone,
    parts,
    product_names,
)

EIGHT = Quantization(activations="uint8")
SEVEN = Quantization(activations="uint8", reduce_range=True)  # no processor saturates
ERROR = 0.35  # of the largest output: 7 bits, 24 channels of random weights


def of_onnxruntime(model, how, nodes, folder):
    """What its quantiser makes; a Gemm becomes a MatMul with a name of its own there."""
    kinds = {node.name: node.op_type for node in model.graph.node}
    logging.disable(logging.WARNING)  # it asks for its preprocessing
    try:
        peer.quantize_dynamic(
            model,
            folder / "theirs.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=how.reduce_range,
            weight_type=peer.QuantType.QInt8,
            nodes_to_quantize=[f"{n}_MatMul" if kinds[n] == "Gemm" else n for n in nodes],
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(folder / "theirs.onnx")


def check_equal(model, how, folder, nodes=None):
    given = onnx.ModelProto()
    given.CopyFrom(model)
    ours = DynamicInt8Writer(model, how).write(nodes)
    assert model == given
    onnx.checker.check_model(ours, full_check=True)
    nodes = product_names(model) if nodes is None else nodes
    theirs = of_onnxruntime(given, how, nodes, folder)
    assert parts(ours) == parts(theirs)
    return ours, theirs


def kernels(model, folder):
    """Count the nodes that ONNX Runtime runs for a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


def error(model, reference, x, **how):
    found, expected = Session(model, **how)({"x": x})["y"], run(reference, {"x": x})["y"]
    return np.abs(found - expected).max() / np.abs(expected).max()


def inputs(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("how", [EIGHT, SEVEN], ids=str)
def test_every_product(how, tmp_path):
    check_equal(every_product(), how, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_any_set_of_nodes(seed, tmp_path):
    model, draw = every_product(), np.random.default_rng(seed)
    kinds = {node.name: node.op_type for node in model.graph.node}
    # Its quantiser takes apart all Gemm nodes.
    nodes = [n for n in product_names(model) if kinds[n] == "Gemm" or draw.random() < 0.5]
    check_equal(model, EIGHT, tmp_path, nodes)


@pytest.mark.parametrize("gemm", [False, True], ids=["matmul", "gemm"])
def test_an_encoder_runs_on_the_same_fused_kernels(gemm, tmp_path):
    model, x = encoder(layers=3, gemm=gemm), inputs(3, 7, 24)
    ours, theirs = check_equal(model, SEVEN, tmp_path)
    assert kernels(ours, tmp_path) == kernels(theirs, tmp_path)
    assert kernels(ours, tmp_path)["DynamicQuantizeMatMul"] >= 6
    for optimised in (True, False):
        assert 0 < error(ours, model, x, optimised=optimised) < ERROR


def test_a_weight_that_is_also_read_as_it_is_stays_exact_there():
    model = every_product()
    model.graph.node.append(helper.make_node("Add", ["sum", "w2"], ["exact"], name="exact"))
    model.graph.output.append(helper.make_tensor_value_info("exact", TensorProto.FLOAT, [66, 66]))
    made = DynamicInt8Writer(model, EIGHT).write()
    onnx.checker.check_model(made, full_check=True)
    (last,) = [node for node in made.graph.node if node.name == "exact"]
    assert list(last.input) == ["sum", "w2"]
    before, after = parts(model)[1], parts(made)[1]
    assert after["w2"] == before["w2"]


def test_untouched_nodes_stay_as_they_are():
    model = encoder(layers=2, gemm=True)
    chosen = [name for name in product_names(model) if name.startswith("1.")]
    before, after = parts(model), parts(DynamicInt8Writer(model, SEVEN).write(chosen))
    kept = {name: node for name, node in before[0].items() if name not in chosen}
    assert len(chosen) == 6
    assert kept.items() <= after[0].items()
    assert parts(DynamicInt8Writer(model, SEVEN).write([])) == before


def test_one_writer_for_many_sets_of_nodes():
    model = every_product()
    writer, nodes = DynamicInt8Writer(model, EIGHT), product_names(model)
    writer.write(nodes[::2])
    assert parts(writer.write()) == parts(DynamicInt8Writer(model, EIGHT).write())


def test_beside_static_int8():
    model, x = encoder(layers=3), inputs(3, 7, 24)
    static = [n.name for n in model.graph.node if n.name.startswith(("0.", "2.up"))]
    ranges, _ = activation_ranges(model, activations(model), [{"x": x}])
    mixed = Int8Writer(model, ranges, SEVEN).write(static)
    assert product_names(mixed) == [n for n in product_names(model) if n not in static]
    written = DynamicInt8Writer(mixed, SEVEN).write()
    onnx.checker.check_model(written, full_check=True)
    names = Counter(node.name for node in written.graph.node)
    assert max(names.values()) == 1
    for optimised in (True, False):
        assert 0 < error(written, model, x, optimised=optimised) < ERROR


def test_the_same_data_in_static_int8():
    """A value that is an output of the model has its static scale under the same names."""
    model = encoder(layers=1)
    model.graph.output.append(
        helper.make_tensor_value_info("0.norm1", TensorProto.FLOAT, ["n", 7, 24])
    )
    x = inputs(2, 7, 24)
    ranges, _ = activation_ranges(model, activations(model), [{"x": x}])
    mixed = Int8Writer(model, ranges, SEVEN).write(["0.norm1.sum", "0.relu", "0.out"])
    written = DynamicInt8Writer(mixed, SEVEN).write()
    onnx.checker.check_model(written, full_check=True)
    assert error(written, model, x) < ERROR


def test_products_without_a_rule_are_left_alone():
    model, nodes = left_alone()
    assert product_names(model) == nodes
    written = DynamicInt8Writer(model, EIGHT).write()
    made = {node.name for node in written.graph.node}
    assert {node.name for node in model.graph.node} - made == set(nodes)
    assert "w" in {tensor.name for tensor in written.graph.initializer}


def test_weights_in_another_file_are_left_alone():
    model = encoder(layers=1)
    for tensor in model.graph.initializer[:1]:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    assert "0.q.matmul" not in product_names(model)
    assert "0.k.matmul" in product_names(model)


def test_weights_of_constant_nodes_and_behind_identities():
    model = behind_constants()
    assert product_names(model) == ["y", "z"]
    both = DynamicInt8Writer(model, SEVEN).write()
    assert {t.name for t in both.graph.initializer} == {"c_quantized", "c_scale", "c_zero_point"}
    assert not {"Constant", "Identity"} & {node.op_type for node in both.graph.node}
    one = DynamicInt8Writer(model, SEVEN).write(["y"])
    assert {"c", "z"} <= {node.name for node in one.graph.node}
    assert "i1" not in {node.name for node in one.graph.node}
    for written in (both, one):
        assert error(written, model, inputs(3, 6)) < ERROR


def test_names_that_are_taken():
    model = every_product()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["x_scale" if name == "m1" else name for name in names]
    written = DynamicInt8Writer(model, SEVEN).write()
    onnx.checker.check_model(written, full_check=True)
    x = inputs(66, 70)
    found, expected = run(written, {"x": x})["z"], run(model, {"x": x})["z"]
    assert np.abs(found - expected).max() < ERROR * np.abs(expected).max()


def test_a_weight_inside_another_graph_and_nodes_without_names():
    """The weight that a branch of an If reads stays; names follow from outputs."""
    model = behind_constants()
    for node in model.graph.node:
        node.name = ""
    value = helper.make_tensor_value_info("c2", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Neg", ["c"], ["c2"])], "branch", [], [value])
    other = helper.make_graph([helper.make_node("Abs", ["c"], ["c2"])], "other", [], [value])
    node = helper.make_node("If", ["yes"], ["u"], then_branch=branch, else_branch=other)
    model.graph.node.append(node)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.output.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, None))
    written = DynamicInt8Writer(model, SEVEN).write()
    assert "Constant" in {node.op_type for node in written.graph.node}
    assert error(written, model, inputs(3, 6)) < ERROR


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(value):
    model = every_product()
    weight = numpy_helper.to_array(model.graph.initializer[2]).copy()
    weight[3, 4] = value
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "w3"))
    writer = DynamicInt8Writer(model, EIGHT)
    with pytest.raises(EvaluationError, match="weight w3 has values that are not finite"):
        writer.write()
    writer.write([name for name in product_names(model) if name != "g3"])


def test_an_opset_without_dynamic_quantisation():
    model = every_product()
    model.opset_import[0].version = 10
    with pytest.raises(EvaluationError, match=r"has opset 10, and dynamic int8 begins with 11"):
        DynamicInt8Writer(model, EIGHT)
