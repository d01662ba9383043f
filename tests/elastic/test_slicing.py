import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from hwsearch.elastic import wire
from hwsearch.elastic.build import Slicer, sliced, zeroed
from hwsearch.elastic.graph import (
    Branch,
    Graph,
    Group,
    Patch,
    RepeatedLayer,
    Slot,
    Structure,
)
from hwsearch.elastic.network import kept_units
from hwsearch.errors import InputError
from tests.elastic.small_models import (
    MODELS,
    full_model,
    mlp,
    mobile_cnn as mobile,
    residual_cnn,
    samples,
    transformer,
)

ALL = pytest.mark.parametrize("name", MODELS)


def run(model, inputs):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))


def random_kept(structure, rng, chance=0.8):
    """Draw some units of most groups, equally of each part."""
    kept = {}
    for group in structure.groups:
        parts = group.parts if len(group.parts) else np.zeros(group.size, int)
        share = int(np.gcd.reduce(np.bincount(parts)))
        if rng.random() < chance:
            count = int(rng.integers(1, share + 1)) * group.size // share
            kept[group.name] = kept_units(group, rng.permutation(group.size), count)
    return kept


def random_dropped(structure, rng):
    return {branch.name for branch in structure.branches if rng.random() < 0.4}


def difference(ours, reference):
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, reference, strict=True))


def initialisers(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@ALL
def test_sliced_equals_zeroed(name):
    structure = MODELS[name]()
    rng = np.random.default_rng(1)
    inputs = samples(structure, 3)
    slicer = Slicer(structure)
    sizes = set()
    for _ in range(12):
        kept, dropped = random_kept(structure, rng), random_dropped(structure, rng)
        content = slicer.serialised(kept, dropped)
        reference = run(zeroed(structure, kept, dropped), inputs)
        assert difference(run(wire.parsed(content), inputs), reference) < 1e-5
        sizes.add(len(content))
    assert len(sizes) > 6


@ALL
def test_everything_kept_is_the_model(name):
    structure = MODELS[name]()
    whole = full_model(structure.graph)
    every = {group.name: np.ones(group.size, bool) for group in structure.groups}
    inputs = samples(structure, 2)
    assert difference(run(sliced(structure, every), inputs), run(whole, inputs)) == 0
    assert initialisers(sliced(structure, {})).keys() == structure.graph.weights.keys()


@ALL
def test_written_bytes_are_those_of_protobuf(name):
    structure = MODELS[name]()
    rng = np.random.default_rng(2)
    kept, dropped = random_kept(structure, rng), random_dropped(structure, rng)
    content = Slicer(structure).serialised(kept, dropped)
    assert wire.parsed(content).SerializeToString(deterministic=True) == content
    assert Slicer(structure).serialised(kept, dropped) == content


def test_units_of_both_inputs_of_a_concat_leave_one_axis():
    structure = mobile()
    kept = {
        "side.width": np.arange(12) % 3 == 0,
        "stem.width": np.arange(8) < 5,
    }
    found = initialisers(sliced(structure, kept))["mix.weight"]
    columns = [0, 3, 6, 9, 12, 13, 14, 15, 16]
    np.testing.assert_array_equal(found, structure.graph.weights["mix.weight"][:, columns])


def test_attributes_and_shapes_are_patched():
    half = np.arange(24) % 2 == 0
    model = sliced(mobile(), {"expand.width": half})
    (depthwise,) = (node for node in model.graph.node if node.name == "depthwise")
    assert {a.name: a.i for a in depthwise.attribute}["group"] == 12
    model = sliced(transformer(), {"attention.heads": np.array([True, False, False, True])})
    assert initialisers(model)["merge.shape"].tolist() == [0, 0, 12]


def test_a_dropped_branch_takes_its_nodes_and_weights_along():
    model = sliced(residual_cnn(), {}, {"block.keep"})
    assert [node.name for node in model.graph.node] == [
        "stem", "stem.relu", "block.out", "down", "down.relu", "pool", "flat", "head"
    ]  # fmt: skip
    assert not any(name.startswith("block") for name in initialisers(model))
    assert [value.name for value in model.graph.input] == ["image"]


def test_a_dropped_layer_takes_its_norm_along():
    structure = transformer()
    names = [node.name for node in structure.graph.proto.graph.node]
    inside = tuple(names[names.index("ffn.in.matmul") :])
    layer = RepeatedLayer(name="layer.1.keep", input="norm1", output="norm2", nodes=inside)
    layered = Structure(
        graph=structure.graph,
        groups=structure.groups,
        branches=structure.branches,
        work=(),
        layers=(layer,),
    )
    kept = {"attention.heads": np.array([True, False, True, False])}
    model = sliced(layered, kept, {"layer.1.keep"})
    assert [node.name for node in model.graph.node][-2:] == ["norm1", "norm2"]
    assert not any(name.startswith(("ffn", "norm2")) for name in initialisers(model))
    inputs = samples(structure, 2)
    for dropped in ({"layer.1.keep"}, {"layer.1.keep", "ffn.keep"}):
        found = run(sliced(layered, kept, dropped), inputs)
        assert difference(found, run(zeroed(layered, kept, dropped), inputs)) < 1e-5


def test_integers_are_patched_before_they_are_sliced():
    structure = mlp()
    proto = onnx.ModelProto()
    proto.CopyFrom(structure.graph.proto)
    gather = onnx.helper.make_node("Gather", ["relu1", "order"], ["shuffled"], name="g", axis=1)
    (reader,) = (node for node in proto.graph.node if node.name == "fc2")
    reader.input[0] = "shuffled"
    proto.graph.node.insert(list(proto.graph.node).index(reader), gather)
    order = np.arange(32).reshape(2, 16).T.ravel()  # 0 16 1 17 ...
    back = np.argsort(order)
    weights = {**structure.graph.weights, "order": order}
    graph = Graph(proto=proto, weights=weights, origins={}, shapes={}, digest="0" * 64)
    first, second = structure.groups
    places = back[:, None]
    slots = [
        Slot(weight=s.weight, axis=s.axis, positions=places, node=s.node, role=s.role)
        if s.role == "in"
        else s
        for s in first.slots
    ]
    slots.append(Slot(weight="order", axis=0, positions=places, node="g", role="through"))
    patches = tuple(
        Patch(target="order", position=at, amounts=(np.arange(32) < channel).astype(np.int64))
        for at, channel in enumerate(order)
    )
    group = Group(name=first.name, kind="inner", size=32, slots=tuple(slots), patches=patches)
    shuffled = Structure(graph=graph, groups=(group, second), branches=(), work=())
    kept = {first.name: np.arange(32) % 3 != 1}
    found = initialisers(sliced(shuffled, kept))["order"]
    assert sorted(found) == list(range(21))
    inputs = samples(structure, 2)
    reference = run(zeroed(shuffled, kept), inputs)
    assert difference(run(sliced(shuffled, kept), inputs), reference) < 1e-5


def test_outputs_keep_their_names_where_the_last_addition_goes():
    structure = residual_cnn()
    proto = onnx.ModelProto()
    proto.CopyFrom(structure.graph.proto)
    while proto.graph.node[-1].name != "block.add":
        proto.graph.node.pop()
    proto.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("block.add", onnx.TensorProto.FLOAT, ["N", 16, 12, 12])
    )
    graph = Graph(
        proto=proto,
        weights={
            n: w for n, w in structure.graph.weights.items() if n.startswith(("stem", "block"))
        },
        origins={},
        shapes=structure.graph.shapes,
        digest="0" * 64,
    )
    cut = Structure(graph=graph, groups=(), branches=structure.branches, work=())
    model = sliced(cut, {}, {"block.keep"})
    inputs = samples(structure, 2)
    assert [value.name for value in model.graph.output] == ["block.add"]
    assert difference(run(model, inputs), run(zeroed(cut, {}, {"block.keep"}), inputs)) == 0


def test_replaced_weights_are_whole_or_sliced_already():
    structure = residual_cnn()
    keep = {"stem.width": np.arange(16) < 6, "block.width": np.arange(24) < 9}
    new = np.arange(24 * 6 * 9, dtype=np.float64).reshape(24, 6, 3, 3)
    bias = np.arange(24, dtype=np.float32)
    replaced = {"block.conv1.weight": new, "block.conv1.bias": bias}
    found = initialisers(sliced(structure, keep, (), replaced))
    np.testing.assert_array_equal(found["block.conv1.weight"], new[:9].astype(np.float32))
    np.testing.assert_array_equal(found["block.conv1.bias"], bias[:9])
    with pytest.raises(ValueError, match=r"axis 1 .* has 7 positions; it needs 16 or the 6"):
        sliced(structure, keep, (), {"block.conv1.weight": np.zeros((24, 7, 3, 3))})


def test_other_input_sizes_are_written_into_the_input():
    structure = residual_cnn()
    content = Slicer(structure).serialised({}, shapes={"image": (1, 3, 8, 8)})
    model = wire.parsed(content)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 3, 8, 8]
    run(model, {"image": np.zeros((2, 3, 8, 8), np.float32)})


def test_untouched_weights_are_not_copied_before_they_are_written():
    array = np.zeros((100, 10), np.float32)
    tensor = wire.tensor("big", array)
    assert tensor.data() is array
    assert tensor.nbytes == array.nbytes
    assert len(tensor.head) < 40


def written(name, array):
    """Return the initialiser of a model of a single one."""
    given = onnx.helper.make_model(onnx.helper.make_graph([], "one", [], []))
    model = wire.parsed(wire.model(given, [], [wire.tensor(name, array)], [], []))
    return model.graph.initializer[0]


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT16", "BOOL", "INT4", "INT64", "STRING"])
def test_tensors_of_all_types_survive(kind):
    if kind == "STRING":
        array = np.array(["a", "bc"], object)
    else:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, kind))
        array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    found = written("x", array)
    assert found == numpy_helper.from_array(array, "x") or kind == "STRING"
    read = numpy_helper.to_array(found)
    assert found.name == "x"
    assert read.shape == array.shape
    assert [str(v) for v in read.ravel()] == [
        str(v.encode() if kind == "STRING" else v) for v in array.ravel()
    ] or kind == "STRING"


def test_a_scalar_and_an_empty_tensor_survive():
    for array in (np.float32(2.5), np.zeros((0, 3), np.float32)):
        found = written("x", np.asarray(array))
        np.testing.assert_array_equal(numpy_helper.to_array(found), array)


def test_what_cannot_be_kept_is_refused():
    structure = residual_cnn()
    with pytest.raises(InputError, match=r"unknown group 'stem.wdth'.*Did you mean 'stem.width'"):
        sliced(structure, {"stem.wdth": np.ones(16, bool)})
    with pytest.raises(InputError, match="unknown branch 'b'"):
        sliced(structure, {}, {"b"})
    for wrong in (np.ones(15, bool), np.zeros(16, bool), np.ones(16, int)):
        with pytest.raises(InputError, match="give 16 bools, one at least true"):
            sliced(structure, {"stem.width": wrong})


def test_parts_keep_equal_shares():
    structure = mlp()
    parts = np.repeat([0, 1], [8, 24])
    first = structure.groups[0]
    group = Group(
        name=first.name, kind=first.kind, size=first.size, slots=first.slots, parts=parts
    )
    structure = Structure(graph=structure.graph, groups=(group,), branches=(), work=())
    with pytest.raises(InputError, match=r"keep \[8, 4\] of \[8, 24\] units"):
        sliced(structure, {group.name: np.arange(32) < 12})
    kept = kept_units(group, np.arange(32)[::-1], 16)
    assert np.flatnonzero(kept).tolist() == [4, 5, 6, 7, *range(20, 32)]
    sliced(structure, {group.name: kept})
    with pytest.raises(InputError, match="cannot keep 3 of its 32 units"):
        kept_units(group, np.arange(32), 3)


def test_the_two_sides_of_an_addition_do_not_go_together():
    structure = residual_cnn()
    other = Branch(name="stem.keep", node="block.add", side=1, nodes=())
    both = Structure(
        graph=structure.graph,
        groups=structure.groups,
        branches=(*structure.branches, other),
        work=(),
    )
    with pytest.raises(InputError, match="two sides of one addition"):
        sliced(both, {}, {"block.keep", "stem.keep"})
    assert (
        len(sliced(both, {}, {"stem.keep"}).graph.node)
        == len(structure.graph.proto.graph.node) - 1
    )


def test_patches_of_several_groups_add_up():
    structure = mlp()
    proto = onnx.ModelProto()
    proto.CopyFrom(structure.graph.proto)
    node = onnx.helper.make_node("Constant", [], ["c"], name="c", value_ints=[9, 100])
    proto.graph.node.insert(0, node)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.INT64, [2]))
    graph = Graph(
        proto=proto, weights=structure.graph.weights, origins={}, shapes={}, digest="0" * 64
    )
    groups = [
        Group(
            name=g.name,
            kind=g.kind,
            size=g.size,
            slots=g.slots,
            patches=(
                Patch(target="c", attribute="value_ints", position=1, amounts=np.full(g.size, 2)),
            ),
        )
        for g in structure.groups
    ]
    patched = Structure(graph=graph, groups=tuple(groups), branches=(), work=())
    model = sliced(patched, {"fc1.width": np.arange(32) < 30, "fc2.width": np.arange(20) < 19})
    assert list(model.graph.node[0].attribute[0].ints) == [9, 94]


def test_slots_are_at_any_positions():
    structure = mlp()
    positions = np.array([[3, 1], [0, 5]])
    slots = (
        Slot(weight="fc1.weight", axis=0, positions=positions, node="fc1", role="out"),
        Slot(weight="fc1.bias", axis=0, positions=positions, node="fc1", role="out"),
        Slot(weight="fc2.weight", axis=0, positions=positions, node="fc2", role="in"),
    )
    group = Group(name="two", kind="inner", size=2, slots=slots)
    two = Structure(graph=structure.graph, groups=(group,), branches=(), work=())
    kept = {"two": np.array([False, True])}
    found = initialisers(sliced(two, kept))["fc2.weight"]
    remain = [0, 2, 4, *range(5, 32)]
    np.testing.assert_array_equal(found, structure.graph.weights["fc2.weight"][remain])
    inputs = samples(structure, 2)
    assert difference(run(sliced(two, kept), inputs), run(zeroed(two, kept), inputs)) < 1e-5
