"""Exported models become canonical graphs that agree with them."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from hwsearch.elastic.reading import read_graph
from hwsearch.models.execution import Session
from tests.elastic.miniatures import LENGTHS, MINIATURES, build, export, outputs_of

EXPORTS = [
    pytest.param(
        name,
        exporter,
        batch,
        id=f"{name}-{exporter}-{batch}",
        marks=[pytest.mark.slow] if exporter == "dynamo" else [],  # seconds each
    )
    for name in MINIATURES
    for exporter in ("script", "dynamo")
    for batch in ("symbolic", "fixed")
]
_read = {}


@pytest.fixture
def case(request):
    """A network, its samples, its export and the graph that was read, each made once."""
    name, exporter, batch = request.param
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
    if request.param not in _read:
        module, inputs = build(name)
        lengths = LENGTHS.get(name) if batch == "symbolic" else None
        proto = export(module, inputs, exporter=exporter, batch=batch, lengths=lengths)
        _read[request.param] = (name, module, inputs, proto, read_graph(proto))
    return _read[request.param]


def every(function):
    cases = [pytest.param(each.values, id=each.id, marks=each.marks) for each in EXPORTS]
    return pytest.mark.parametrize("case", cases, indirect=True)(function)


def samples(inputs, count=3):
    torch.manual_seed(1)
    drawn = {}
    for name, tensor in inputs.items():
        shape = (count, *tensor.shape[1:])
        if tensor.dtype == torch.int64:
            drawn[name] = torch.randint(0, 2 if name == "mask" else 50, shape)
            drawn[name][:, 0] = 1
        else:
            drawn[name] = torch.randn(shape)
    return drawn


def run(graph, inputs):
    session = Session(graph.proto, weights=graph.weights)
    found = session({name: tensor.numpy() for name, tensor in inputs.items()})
    return [found[value.name] for value in graph.proto.graph.output]


def assert_agree(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


@every
def test_agrees_on_batches(case):
    _, module, inputs, _, graph = case
    batch = samples(inputs)
    assert_agree(run(graph, batch), outputs_of(module, batch))


@every
def test_batch_is_symbolic_and_nothing_is_noted(case):
    graph = case[-1]
    for value in (*graph.proto.graph.input, *graph.proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph.notes == ()


@every
def test_interface_is_kept(case):
    *_, proto, graph = case
    for kind in ("input", "output"):
        before, after = getattr(proto.graph, kind), getattr(graph.proto.graph, kind)
        assert [v.name for v in after] == [v.name for v in before]
        types = [[v.type.tensor_type.elem_type for v in values] for values in (before, after)]
        assert types[0] == types[1]


@every
def test_form_is_canonical(case):
    graph = case[-1]
    proto = graph.proto.graph
    uses = Counter(name for node in proto.node for name in node.input if name)
    assert set(graph.weights) <= set(uses)
    assert {name: uses[name] for name in graph.weights if uses[name] != 1} == {}
    names = [node.name for node in proto.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not {n.op_type for n in proto.node} & {"Constant", "Identity", "Dropout", "If"}
    assert not proto.initializer
    assert not proto.value_info
    known = {value.name for value in proto.input} | set(graph.weights)
    producers = {name: node for node in proto.node for name in node.output}
    for node in proto.node:
        assert known.issuperset(filter(None, node.input)), f"{node.name} comes too early"
        assert not set(node.output) & known
        known.update(node.output)
        if node.op_type == "BatchNormalization":
            before = producers.get(node.input[0])
            alone = uses[node.input[0]] == 1
            assert (
                before is None
                or not alone
                or before.op_type not in ("Conv", "ConvTranspose", "Gemm")
            )
    assert all(set(graph.weights).isdisjoint(n.output) for n in proto.node)


@every
def test_shapes_are_those_of_one_sample(case):
    _, _, inputs, _, graph = case
    names = [name for node in graph.proto.graph.node for name in node.output if name]
    found = Session(graph.proto, names, graph.weights)(
        {n: np.zeros(graph.shapes[n], samples(inputs)[n].numpy().dtype) for n in inputs}
    )
    assert {name: graph.shapes[name] for name in names} == {n: a.shape for n, a in found.items()}
    assert all(graph.shapes[name][0] == 1 for name in inputs)


@every
def test_targets_of_reshapes_are_constant(case):
    graph = case[-1]
    for node in graph.proto.graph.node:
        if node.op_type == "Reshape":
            assert node.input[1] in graph.weights, node.name


@every
def test_origins_lead_to_the_given_weights(case):
    *_, proto, graph = case
    given = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            given[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    matrices = [n for n, array in graph.weights.items() if array.ndim >= 2 and array.size > 8]
    assert matrices
    for name in matrices:
        origin = graph.origins[name]
        if origin.norm:
            assert all(each in given for each in origin.norm)
            continue
        array = given[origin.name]
        if origin.permutation:
            array = array.transpose(origin.permutation)
        np.testing.assert_array_equal(
            array.reshape(graph.weights[name].shape), graph.weights[name]
        )


def test_length_stays_symbolic():
    module, inputs = build("encoder")
    proto = export(module, inputs, lengths=LENGTHS["encoder"])
    graph = read_graph(proto, {"ids": (11,), "mask": (1, 11)})
    assert graph.shapes["ids"] == (1, 11)
    dims = [d.dim_param for d in graph.proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", "length"]
    for length in (1, 7, 30):
        ids = torch.randint(0, 50, (2, length))
        batch = {"ids": ids, "mask": torch.ones_like(ids)}
        assert_agree(run(graph, batch), outputs_of(module, batch))


def test_default_length_is_32_tokens():
    module, inputs = build("encoder")
    graph = read_graph(export(module, inputs, lengths=LENGTHS["encoder"]))
    assert graph.shapes["ids"] == (1, 32)


def test_default_picture_has_224_pixels():
    module, inputs = build("residual")
    graph = read_graph(export(module, inputs, lengths={"x": {2: "height", 3: "width"}}))
    assert graph.shapes["x"] == (1, 3, 224, 224)
    dims = [
        d.dim_param or d.dim_value for d in graph.proto.graph.input[0].type.tensor_type.shape.dim
    ]
    assert dims == ["batch", 3, "height", "width"]


@pytest.mark.parametrize("opset", [11, 12, 13, 14])
@pytest.mark.parametrize("name", ["residual", "dense", "transformer"])
def test_old_opsets(name, opset):
    module, inputs = build(name)
    graph = read_graph(export(module, inputs, opset=opset, batch="fixed"))
    batch = samples(inputs)
    assert_agree(run(graph, batch), outputs_of(module, batch))


def test_file_with_external_data(tmp_path):
    module, inputs = build("transformer")
    proto = export(module, inputs)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="model.data")
    graph = read_graph(path)
    batch = samples(inputs)
    assert_agree(run(graph, batch), outputs_of(module, batch))
    assert not any(isinstance(array, np.memmap) for array in graph.weights.values())


def test_reading_does_not_change_the_given_model():
    proto = export(*build("dense"))
    before = proto.SerializeToString(deterministic=True)
    read_graph(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_reading_is_deterministic():
    proto = export(*build("encoder"), lengths=LENGTHS["encoder"])
    first, second = read_graph(proto), read_graph(proto)
    assert first.proto == second.proto
    assert list(first.weights) == list(second.weights)
    assert first.digest == second.digest
    assert first.origins == second.origins


def test_folded_batch_norms_name_their_parameters():
    graph = read_graph(export(*build("segmentation")))
    up = next(n for n in graph.proto.graph.node if n.op_type == "ConvTranspose")
    origin = graph.origins[up.input[1]]
    assert origin.name == "up.weight"
    assert origin.norm == ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert graph.origins[up.input[2]].norm == origin.norm


def test_tied_weights_get_a_copy_each():
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, 1, ["n", 4]) for n in "xy")
    graph = read_graph(
        helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
        )
    )
    first, second = (n.input[1] for n in graph.proto.graph.node if n.op_type == "MatMul")
    assert first != second
    assert graph.origins[first] == graph.origins[second]
    assert np.shares_memory(graph.weights[first], graph.weights[second])
