"""Input specs of plain ONNX models, of any exporter."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import InputError
from hwsearch.models.input_spec import input_spec_of, open_inputs, token_role

FLOAT, INT, BYTE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


def value(name, dims, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, dims)


def model(inputs, outputs=(("logits", ["n", 10]),), nodes=(), weights=()):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value(*each) for each in inputs],
        [value(*each) for each in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize("batch", [1, "batch", "", 8])
def test_images(batch):
    spec = input_spec_of(model([("pixels", [batch, 3, 224, 224])]))
    (tensor,) = spec.inputs
    assert (tensor.name, tensor.shape, tensor.dtype) == ("pixels", (3, 224, 224), "float32")
    assert spec.outputs == ("logits",)
    assert spec.classes == tuple("0123456789")
    found = spec.preprocessing
    assert (found.resize, found.crop, found.layout, found.colour) == (256, 224, "NCHW", "RGB")
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("dims", "shape", "layout"),
    [
        ([3, 32, 32], (3, 32, 32), "NCHW"),
        ([32, 32, 3], (32, 32, 3), "NHWC"),
        ([1, 28, 28], (1, 28, 28), "NCHW"),
        ([28, 28, 1], (28, 28, 1), "NHWC"),
        ([3, "h", "w"], (3, 224, 224), "NCHW"),
        (["h", "w", 3], (224, 224, 3), "NHWC"),
        ([3, 96, "w"], (3, 96, 96), "NCHW"),
        ([3, 64, 128], (3, 64, 128), "NCHW"),
        (["c", 32, 32], (3, 32, 32), "NCHW"),
    ],
)
def test_layouts(dims, shape, layout):
    spec = input_spec_of(model([("x", ["n", *dims])]))
    assert spec.inputs[0].shape == shape
    assert spec.preprocessing.layout == layout
    assert spec.preprocessing.crop == min(s for s in shape if s > 4)


def test_layout_by_what_the_graph_does_first():
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])]
    assert input_spec_of(model([("x", ["n", 4, 64, 3])])).preprocessing.layout == "NCHW"
    spec = input_spec_of(model([("x", ["n", 4, 64, 3])], nodes=nodes))
    assert spec.preprocessing.layout == "NHWC"
    conv = [*nodes, helper.make_node("Conv", ["y", "w"], ["z"])]
    weights = [("w", np.zeros((8, 1, 3, 3), np.float32))]
    spec = input_spec_of(model([("x", ["n", "h", "w", "c"])], nodes=conv, weights=weights))
    assert spec.inputs[0].shape == (224, 224, 1)


def test_open_sizes_may_be_given():
    proto = model([("x", ["n", 3, "h", "w"])])
    assert open_inputs(proto) == {"x": "NCHW"}
    assert input_spec_of(proto, {"x": (3, 64, 96)}).inputs[0].shape == (3, 64, 96)
    for wrong, says in (
        ((64, 96), "give a number for each"),
        ((4, 64, 96), "leave the fixed sizes as they are"),
        ((3, 0, 96), "has no numbers"),
    ):
        with pytest.raises(InputError, match=says):
            input_spec_of(proto, {"x": wrong})
    with pytest.raises(InputError, match="a shape is given for y, and the model's inputs are x"):
        input_spec_of(proto, {"y": (3, 64, 96)})


def test_weights_that_old_files_list_as_inputs():
    weights = [("w", np.zeros((8, 3), np.float32))]
    proto = model([("x", ["n", 3]), ("w", [8, 3])], weights=weights)
    assert [tensor.name for tensor in input_spec_of(proto).inputs] == ["x"]
    assert input_spec_of(proto).preprocessing is None


def test_text():
    names = ("input_ids", "attention_mask", "token_type_ids")
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["a"]),
        helper.make_node("Cast", ["token_type_ids"], ["t"], to=INT),
        helper.make_node("Gather", ["types", "t"], ["b"]),
    ]
    weights = [
        ("words", np.zeros((50, 4), np.float32)),
        ("types", np.zeros((2, 4), np.float32)),
    ]
    inputs = [(name, ["n", "length"], INT) for name in names]
    outputs = [("last_hidden_state", ["n", "length", 4]), ("pooler_output", ["n", 4])]
    proto = model(inputs, outputs, nodes, weights)
    spec = input_spec_of(proto)
    assert [tensor.shape for tensor in spec.inputs] == [(128,)] * 3
    assert [tensor.high for tensor in spec.inputs] == [50, 2, 2]
    assert spec.preprocessing is None
    assert spec.classes == ()
    assert input_spec_of(proto, dict.fromkeys(names, (16,))).inputs[2].shape == (16,)
    fixed = [("input_ids", ["n", 64], INT), *inputs[1:]]
    assert [t.shape for t in input_spec_of(model(fixed)).inputs] == [(64,)] * 3


def test_roles_of_tokens():
    roles = {
        "ids": ["input_ids", "ids", "input_ids:0", "input_word_ids", "tokens", "input_ids.1"],
        "mask": ["attention_mask", "input_mask", "mask"],
        "types": ["token_type_ids", "segment_ids"],
        "positions": ["position_ids"],
    }
    for role, names in roles.items():
        assert {token_role(name) for name in names} == {role}
    assert {token_role(name) for name in ("x", "image", "video", "data")} == {None}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([("x", ["n", 80, "time"])], r"leaves the size of its axis 2 open \(80, time, without"),
        ([("x", [])], "is a single number"),
        ([("x", ["n"], TensorProto.STRING)], "is of type STRING; a model is fed float32"),
        ([], "the model has no inputs, or no outputs"),
    ],
)
def test_inputs_that_cannot_be_fed(inputs, says):
    with pytest.raises(InputError, match=says):
        input_spec_of(model(inputs))


def test_input_without_a_shape():
    proto = model([("x", ["n", 3])])
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InputError, match="'x' is no tensor of known rank"):
        input_spec_of(proto)


def test_images_in_bytes_are_fed_as_they_are():
    spec = input_spec_of(model([("x", ["n", 32, 32, 3], BYTE)]))
    (tensor,) = spec.inputs
    assert (tensor.dtype, tensor.high) == ("uint8", 256)
    assert spec.preprocessing.mean == (0.0,) * 3
    assert spec.preprocessing.std == (1 / 255,) * 3


def test_preprocessing_of_other_inputs_is_refused():
    with pytest.raises(InputError, match=r"'0..1' is of images, and .* x \(float32 \(3,\)\)"):
        input_spec_of(model([("x", ["n", 3])]), preprocess="0..1")


@pytest.mark.parametrize(
    ("outputs", "n"),
    [
        ([("logits", ["n", 7])], 7),
        ([("496", ["n", 7])], 7),
        ([("embedding", ["n", 7])], 0),
        ([("boxes", ["n", 7, 4])], 0),
        ([("y", ["n", 1])], 0),
        ([("y", ["n", "classes"])], 0),
        ([("hidden", ["n", 9]), ("logits", ["n", 7])], 7),
        ([("a", ["n", 9]), ("b", ["n", 7])], 0),
    ],
)
def test_classes(outputs, n):
    spec = input_spec_of(model([("x", ["n", 3, 32, 32])], outputs))
    assert spec.classes == tuple(map(str, range(n)))


def test_names_of_classes_beside_the_model(tmp_path):
    proto = model([("x", ["n", 3, 32, 32])], [("logits", ["n", 2])])
    names = {"0": "cat", "1": "dog"}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    assert input_spec_of(proto, folder=tmp_path).classes == ("cat", "dog")
    for other in ({"0": "LABEL_0", "1": "LABEL_1"}, {"0": "a", "1": "a"}, {"0": "a"}, 3):
        (tmp_path / "config.json").write_text(json.dumps({"id2label": other}))
        assert input_spec_of(proto, folder=tmp_path).classes == ("0", "1")
    (tmp_path / "config.json").write_text("[")
    assert input_spec_of(proto, folder=tmp_path).classes == ("0", "1")
