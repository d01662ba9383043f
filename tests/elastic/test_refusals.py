"""Models that cannot be made elastic are refused by one clear message."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.elastic.reading import read_graph
from hwsearch.errors import InputError
from tests.elastic.miniatures import build, export

RNG = np.random.default_rng(0)


def weight(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(dtype), name)


def model(nodes, weights=(), *, x=("n", 4), y=("n", 4), opsets=(("", 17),), kind=1, functions=()):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "graph",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", 1, y)],
        list(weights),
    )
    imports = [helper.make_opsetid(*each) for each in opsets]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)


def product():
    return model([("MatMul", ["x", "w"], ["y"])], [weight("w", 4, 4)])


def refused(source, match):
    with pytest.raises(InputError, match=match) as error:
        read_graph(source)
    assert "\n" not in str(error.value)


def test_quantised():
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    nodes = [
        ("QuantizeLinear", ["x", "s"], ["q"]),
        ("DequantizeLinear", ["q", "s"], ["d"]),
        ("MatMul", ["d", "w"], ["y"]),
    ]
    refused(model(nodes, [weight("w", 4, 4), scale]), r"quantised: .*give the float32 model")


def test_quantised_by_own_operators_of_onnx_runtime():
    nodes = [("MatMulNBits", ["x", "w"], ["y"], {"domain": "com.microsoft"})]
    proto = model(nodes, [weight("w", 4, 4)], opsets=(("", 17), ("com.microsoft", 1)))
    refused(proto, r"quantised: 1 com.microsoft.MatMulNBits")


def test_optimised_by_onnx_runtime():
    nodes = [("FusedMatMul", ["x", "w"], ["y"], {"domain": "com.microsoft"})]
    proto = model(nodes, [weight("w", 4, 4)], opsets=(("", 17), ("com.microsoft", 1)))
    refused(proto, r"com.microsoft.FusedMatMul.*optimiser writes; give the model as it was before")


@pytest.mark.parametrize(
    ("domain", "match"), [("ai.onnx.ml", "classical machine learning"), ("mine", "not standard")]
)
def test_custom_operators(domain, match):
    nodes = [("MatMul", ["x", "w"], ["h"]), ("Scaler", ["h"], ["y"], {"domain": domain})]
    proto = model(nodes, [weight("w", 4, 4)], opsets=(("", 17), (domain, 1)))
    refused(proto, match)


def test_no_weights():
    refused(model([("Relu", ["x"], ["y"])]), "has no weights")


def test_nan_weights():
    tensor = numpy_helper.from_array(np.full((4, 4), np.nan, np.float32), "layer.weight")
    proto = model([("MatMul", ["x", "layer.weight"], ["y"])], [tensor])
    refused(proto, "'layer.weight' has NaN")


def conditional(condition):
    """Return a model with an If on a value of these nodes."""
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["h"], [f"{name}.y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}.y", 1, None)],
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Sigmoid"))
    }
    nodes = [
        ("MatMul", ["x", "w"], ["h"]),
        *condition,
        ("If", ["c"], ["y"], branches),
    ]
    return model(
        nodes,
        [
            weight("w", 4, 4),
            numpy_helper.from_array(np.array(1), "one"),
            numpy_helper.from_array(np.array(4), "four"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )


def test_condition_on_data():
    nodes = [
        ("ReduceMean", ["h"], ["m"], {"keepdims": 0}),
        ("Greater", ["m", "zero"], ["c"]),
    ]
    refused(conditional(nodes), r"control flow depends on .*1 If")


def test_condition_on_the_batch():
    nodes = [
        ("Shape", ["x"], ["s"], {"end": 1}),
        ("Squeeze", ["s"], ["n"]),
        ("Equal", ["n", "one"], ["c"]),
    ]
    refused(conditional(nodes), r"control flow depends on .*1 If")


@pytest.mark.parametrize(("number", "taken"), [("four", "Relu"), ("one", "Sigmoid")])
def test_condition_on_a_static_axis_is_decided(number, taken):
    nodes = [
        ("Shape", ["h"], ["s"], {"start": 1}),
        ("Squeeze", ["s"], ["n"]),
        ("Equal", ["n", number], ["c"]),
    ]
    graph = read_graph(conditional(nodes))
    assert [node.op_type for node in graph.proto.graph.node] == ["MatMul", taken]
    assert graph.proto.graph.output[0].name == "y"


def test_loop():
    body = helper.make_graph(
        [
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", 1, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", 1, None),
        ],
    )
    nodes = [
        ("MatMul", ["x", "w"], ["h"]),
        ("Loop", ["two", "", "h"], ["y"], {"body": body}),
    ]
    two = numpy_helper.from_array(np.array(2), "two")
    refused(model(nodes, [weight("w", 4, 4), two]), r"control flow is dynamic: 1 Loop")


def test_sequence_output():
    proto = model(
        [("MatMul", ["x", "w"], ["h"]), ("SequenceConstruct", ["h"], ["y"])], [weight("w", 4, 4)]
    )
    proto.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", 1, None))
    refused(proto, "is no tensor but of a sequence_type")


def test_training_mode():
    names = ["scale", "shift", "mean", "var"]
    nodes = [
        ("MatMul", ["x", "w"], ["h"]),
        ("BatchNormalization", ["h", *names], ["y", "m", "v"], {"training_mode": 1}),
    ]
    refused(model(nodes, [weight("w", 4, 4), *(weight(n, 4) for n in names)]), "training mode")


def test_opset_below_11():
    proto = model([("MatMul", ["x", "w"], ["h"]), ("Mine", ["h"], ["y"])], [weight("w", 4, 4)])
    proto.opset_import[0].version = 9
    refused(proto, "opset 9")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x20\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\xff" * 100, "damaged"),
        (b"\x08\x08", "no nodes"),
    ],
)
def test_not_an_onnx_file(tmp_path, content, match):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, match)


def test_missing_file(tmp_path):
    refused(tmp_path / "none.onnx", "there is no file")
    onnx.save(product(), tmp_path / "there.onnx")
    refused(tmp_path, r"is a folder; .*there\.onnx")


def test_truncated_file(tmp_path):
    path = tmp_path / "model.onnx"
    content = product().SerializeToString()
    for length in (len(content) - 1, len(content) // 2):
        path.write_bytes(content[:length])
        refused(path, "damaged")


def external(tmp_path):
    path = tmp_path / "model.onnx"
    proto = model([("MatMul", ["x", "w"], ["y"])], [weight("w", 4, 4)])
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="model.data")
    return path


def test_missing_external_data(tmp_path):
    path = external(tmp_path)
    (tmp_path / "model.data").unlink()
    refused(path, r"'model\.data', which is missing")


def test_truncated_external_data(tmp_path):
    path = external(tmp_path)
    (tmp_path / "model.data").write_bytes(b"\0" * 10)
    refused(path, r"truncated: tensor 'w' ends at byte 64")


def test_external_data_outside_the_folder(tmp_path):
    path = external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../model.data"
    onnx.save(proto, path)
    refused(path, "outside its folder")


def test_model_in_memory_without_its_external_data(tmp_path):
    refused(onnx.load(external(tmp_path), load_external_data=False), "give the path")


def test_larger_than_memory(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    onnx.save(product(), path)
    monkeypatch.setattr("hwsearch.elastic.model_file.available_memory_bytes", lambda: 100)
    refused(path, "GB are available")


def test_unknown_shape():
    proto = product()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    refused(proto, r"does not tell the shape of input 'x'; give it")
    assert read_graph(proto, {"x": (1, 4)}).shapes["x"] == (1, 4)


def test_given_shapes_that_do_not_fit():
    with pytest.raises(InputError, match=r"input 'x' has the axes \(batch, 4\)"):
        read_graph(product(), {"x": (5,)})
    with pytest.raises(InputError, match=r"unknown input 'z'; known: x"):
        read_graph(product(), {"z": (4,)})


def test_invalid_graph():
    refused(model([("MatMul", ["x", "nothing"], ["y"])], [weight("w", 4, 4)]), "nothing")


def test_strings():
    refused(
        model([("MatMul", ["x", "w"], ["y"])], [weight("w", 4, 4)], kind=TensorProto.STRING),
        "has the type STRING",
    )


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_half_precision_is_converted(keep):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(export(*build("residual")), keep_io_types=keep)
    graph = read_graph(half)
    assert {array.dtype.name for array in graph.weights.values()} <= {"float32", "int64"}
    ends = (graph.proto.graph.input[0], graph.proto.graph.output[0])
    kind = TensorProto.FLOAT if keep else TensorProto.FLOAT16
    assert [v.type.tensor_type.elem_type for v in ends] == [kind] * 2
    casts = [node for node in graph.proto.graph.node if node.op_type == "Cast"]
    assert len(casts) == (0 if keep else 2)
