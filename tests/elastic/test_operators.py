"""Small graphs of operators that rearrange, combine or mix channels."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.models.agreement import count_macs
from tests.elastic.removal import difference, effect, kept_units, plain_graph, sliced

IMAGE = "float[N,3,6,6] x"
IDS = "int64[N,5] x"
TOKENS = "float[N,5,8] x"


def model(body, inputs=IMAGE, opset=17, **weights):
    """Return a model: nodes as text, ``y`` is the output; weights are shapes or arrays."""
    text = f"agraph ({inputs}) => (float[N] y) {{ {body} }}"
    graph = onnx.parser.parse_graph(text)
    rng = np.random.default_rng(0)
    for name, given in weights.items():
        if isinstance(given, np.ndarray):
            array = given
        elif given and isinstance(given[0], list):
            array = np.array(given[0], np.int64)
        else:
            array = (rng.standard_normal(given) / np.sqrt(np.prod(given[1:]) or 1)).astype("f4")
        graph.initializer.append(numpy_helper.from_array(array, name))
    graph.output[0].type.tensor_type.ClearField("shape")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def analysed(proto):
    found = analyse(plain_graph(proto, fold=False))
    for seed in (0, 1):
        kept = kept_units(found.groups, 0.5, seed)
        assert difference(found, kept) < 1e-5
    if found.groups:
        assert effect(found, kept) > 1e-4
    return found


def sizes(found):
    return sorted(group.size for group in found.groups)


CONV = "a = Conv<kernel_shape=[1,1]>(x, w1, b1) "
READ = "y = Conv<kernel_shape=[1,1]>(z, w2)"
SHAPES = {"w1": (8, 3, 1, 1), "b1": (8,), "w2": (4, 8, 1, 1)}

# Body between two convolutions of 8 channels (from `a` to `z`), more weights, sizes of groups.
BETWEEN = {
    "activations": ("r = Relu(a) s = Sigmoid(a) z = Mul(r, s)", {}, [8]),
    "norm": ("z = BatchNormalization(a, s, t, m, v)", {
        "s": (8,), "t": (8,), "m": (8,), "v": np.linspace(0.5, 2, 8).astype("f4")}, [8]),
    "prelu": ("z = PRelu(a, s)", {"s": (8, 1, 1)}, [8]),
    "instance norm": ("z = InstanceNormalization(a, s, t)", {"s": (8,), "t": (8,)}, [8]),
    "group norm by reshapes": (
        "q = Reshape(a, g) n = InstanceNormalization(q, s, t) h = Shape(a) "
        "p = Reshape(n, h) u = Mul(p, k) z = Add(u, l)",
        {"g": ([0, 4, -1],), "s": (4,), "t": (4,), "k": (8, 1, 1), "l": (8, 1, 1)}, [4]),
    "flatten back": ("f = Flatten<axis=1>(a) z = Reshape(f, g)", {"g": ([-1, 8, 6, 6],)}, [8]),
    "reshape with zero": ("f = Reshape(a, h) z = Reshape(f, g)", {
        "h": ([0, 0, 36],), "g": ([0, -1, 6, 6],)}, [8]),
    "channel shuffle": (
        "f = Reshape(a, h) p = Transpose<perm=[0,2,1,3,4]>(f) z = Reshape(p, g)",
        {"h": ([-1, 2, 4, 6, 6],), "g": ([-1, 8, 6, 6],)}, [4]),
    "computed shuffle": (
        "h = Shape(a) i0 = Gather(h, zero) c = Gather(h, one) half = Div(c, two) "
        "u0 = Unsqueeze(i0, ax) u1 = Unsqueeze(half, ax2) "
        "t = Concat<axis=0>(u0, two1, u1, hw) f = Reshape(a, t) "
        "p = Transpose<perm=[0,2,1,3,4]>(f) u2 = Unsqueeze(c, ax3) "
        "t2 = Concat<axis=0>(zero1, u2, hw2) z = Reshape(p, t2)",
        {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "ax": ([0],),
         "ax2": ([0],), "ax3": ([0],), "two1": ([2],), "hw": ([6, 6],), "zero1": ([0],),
         "hw2": ([6, 6],)}, [4]),
    "gathered order": ("z = Gather<axis=1>(a, i)", {"i": ([7, 1, 3, -3, 2, 0, 6, -4],)}, [8]),
    "split and concat": (
        "p, q = Split<axis=1>(a, n) r = Relu(p) z = Concat<axis=1>(q, r)", {"n": ([3, 5],)},
        [8]),
    "equal split": ("p, q = Split<axis=1>(a) r = Relu(p) z = Concat<axis=1>(q, r)", {}, [4]),
    "slices": (
        "p = Slice(a, s0, e0, ax) q = Slice(a, s1, e1, ax1) z = Concat<axis=1>(q, p)",
        {"s0": ([0],), "e0": ([-5],), "ax": ([1],), "s1": ([-5],),
         "e1": ([9223372036854775807],), "ax1": ([1],)}, [8]),
    "squeeze and excite": (
        "m = GlobalAveragePool(a) f = Conv(m, v1) g = Relu(f) h = Conv(g, v2, c2) "
        "s = Sigmoid(h) z = Mul(a, s)",
        {"v1": (4, 8, 1, 1), "v2": (8, 4, 1, 1), "c2": (8,)}, [4, 8]),
    "expanded gate": (
        "m = ReduceMean<axes=[2,3]>(a) s = Sigmoid(m) r = Reshape(s, g) h = Shape(a) "
        "e = Expand(r, h) z = Mul(e, a)", {"g": ([-1, 8, 1, 1],)}, [8]),
    "expanded by constant": (
        "m = GlobalAveragePool(a) e = Expand(m, g) z = Mul(e, a)", {"g": ([1, 8, 6, 6],)}, [8]),
    "where": ("c = Greater(a, t) z = Where(c, a, n)", {
        "t": (8, 1, 1), "n": np.array(-1, "f4")}, [8]),
    "clip and cast": ("c = Cast<to=11>(a) d = Cast<to=1>(c) z = Clip(d, l, h)", {
        "l": np.array(0, "f4"), "h": np.array(6, "f4")}, [8]),
    "depthwise": ("z = Conv<group=8, pads=[1,1,1,1]>(a, k, c)", {"k": (8, 1, 3, 3), "c": (8,)},
                  [8]),
    "halves gated": (
        "p, q = Split<axis=1>(a) s = Sigmoid(q) m = Mul(p, s) z = Concat<axis=1>(m, m)", {}, [4]),
    "resize to sizes": (
        "h = Shape(a) i = Slice(h, s0, e0) t = Concat<axis=0>(i, hw) "
        "z = Resize(a, , , t)", {"s0": ([0],), "e0": ([2],), "hw": ([12, 12],)}, [8]),
    "tile": ("t = Tile(a, n) z = Slice(t, s0, e0, ax)", {
        "n": ([1, 2, 1, 1],), "s0": ([4],), "e0": ([12],), "ax": ([1],)}, [8]),
    "space to depth and back": (
        "s = SpaceToDepth<blocksize=2>(a) z = DepthToSpace<blocksize=2>(s)", {}, [8]),
    "pooling": ("m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) "
                "z = AveragePool<kernel_shape=[2,2]>(m)", {}, [8]),
    "one channel removed from the rest": (
        "p = Gather<axis=1>(a, i) u = Unsqueeze(p, ax) z = Mul(a, u)",
        {"i": np.array(5), "ax": ([1],)}, [7]),
    # What cannot be elastic.
    "softmax over channels": ("z = Softmax<axis=1>(a)", {}, []),
    "mean over channels": ("m = ReduceMean<axes=[1]>(a) z = Sub(a, m)", {}, []),
    "every second": ("p = Slice(a, s, e, ax, st) z = Concat<axis=1>(p, p)", {
        "s": ([0],), "e": ([8],), "ax": ([1],), "st": ([2],)}, []),
    "unknown": ("z = LRN<size=3>(a)", {}, []),
    "number of channels as a value": (
        "h = Shape(a) c = Slice(h, s, e) f = Cast<to=1>(c) z = Div(a, f)",
        {"s": ([1],), "e": ([2],)}, []),
    "cumulative": ("z = CumSum(a, i)", {"i": np.array(1)}, []),
    "one channel": ("z = Conv(a, k)", {"k": (8, 8, 1, 1)}, [8, 8]),
}  # fmt: skip


@pytest.mark.parametrize("case", BETWEEN)
def test_between_two_convolutions(case):
    body, weights, expected = BETWEEN[case]
    found = analysed(model(CONV + body + " " + READ, **SHAPES, **weights))
    assert sizes(found) == expected
    if not expected:
        assert sum(each.macs for each in found.rest) == sum(each.macs for each in found.work)
        assert all(each.reason for each in found.rest)


def test_depth_to_space_has_one_unit_for_all_places_of_a_block():
    for mode in ("DCR", "CRD"):
        body = f'{CONV} z = DepthToSpace<blocksize=2, mode="{mode}">(a) {READ}'
        found = analysed(model(body, **{**SHAPES, "w1": (32, 3, 1, 1), "b1": (32,)}))
        assert sizes(found) == [8]
        assert {slot.positions.shape[1] for slot in found.groups[0].slots} == {1, 4}


def test_output_pins():
    found = analysed(model("y = Conv(x, w1, b1)", w1=(8, 3, 1, 1), b1=(8,)))
    assert not found.groups
    assert "output" in found.rest[0].reason


def test_value_that_is_read_and_an_output():
    proto = model(f"{CONV} z = Relu(a) {READ}", **SHAPES)
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert not analysed(proto).groups


def test_weight_that_two_nodes_read_stays():
    proto = model(f"{CONV} z = Relu(a) p = Conv(z, w2) q = Conv(p, w3) y = Conv(q, w3)",
                  **SHAPES, w3=(4, 4, 1, 1))  # fmt: skip
    graph = plain_graph(proto)
    last = graph.proto.graph.node[-1]
    last.input[1] = graph.proto.graph.node[-2].input[1]
    found = analyse(graph)
    assert sizes(found) == [8]
    assert difference(found, kept_units(found.groups)) < 1e-5


def test_padded_shortcut():
    # Channels of the shortcut are padded with zeros, as in ResNets for CIFAR-10.
    body = (
        "a = Conv(x, w1) p = Pad(a, n) b = Conv(a, w2) r = Relu(b) c = Conv(r, w3) s = Add(p, c) "
        "m = GlobalAveragePool(s) f = Flatten(m) y = Gemm<transB=1>(f, w4)"
    )
    found = analysed(model(
        body, w1=(4, 3, 1, 1), n=([0, 2, 0, 0, 0, 2, 0, 0],), w2=(6, 4, 1, 1), w3=(8, 6, 1, 1),
        w4=(5, 8),
    ))  # fmt: skip
    assert sizes(found) == [4, 6]


def test_flatten_before_a_linear_layer():
    found = analysed(model(f"{CONV} r = Relu(a) f = Flatten(r) y = Gemm<transB=1>(f, w2, b2)",
                           w1=(8, 3, 1, 1), b1=(8,), w2=(5, 288), b2=(5,)))  # fmt: skip
    (group,) = found.groups
    assert {slot.positions.shape for slot in group.slots if slot.role == "in"} == {(8, 36)}


def test_weight_on_the_left():
    body = "t = MatMul(w1, x) r = Relu(t) y = MatMul(w2, r)"
    found = analysed(model(body, TOKENS, w1=(7, 5), w2=(3, 7)))
    assert sizes(found) == [7]


def test_gated_linear_unit():
    body = (
        "h = MatMul(x, w1) p, q = Split<axis=-1>(h) s = Sigmoid(q) g = Mul(p, s) y = MatMul(g, w2)"
    )
    found = analysed(model(body, TOKENS, w1=(8, 12), w2=(6, 4)))
    assert [group.kind for group in found.groups] == ["ffn"]
    assert sizes(found) == [6]


HEADS = (
    "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) "
    "q1 = Reshape(q0, sq) k1 = Reshape(k0, sk) v1 = Reshape(v0, sv) "
    "q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,1,3]>(k1) "
    "v = Transpose<perm=[0,2,1,3]>(v1) "
)
CONTEXT = "p = Softmax(s) c = MatMul(p, vv) d = Transpose<perm=[0,2,1,3]>(c) e = Reshape(d, so) "
LINEAR = {"wq": (8, 24), "wo": (24, 3), "sq": ([0, 0, 6, 4],), "so": ([0, 0, -1],)}


def test_attention():
    body = HEADS + "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) vv = Identity(v) " + CONTEXT
    weights = {**LINEAR, "wk": (8, 24), "wv": (8, 24), "sk": ([0, 0, 6, 4],),
               "sv": ([0, 0, 6, 4],)}  # fmt: skip
    found = analysed(model(body + "y = MatMul(e, wo)", TOKENS, **weights))
    (group,) = found.groups
    assert (group.kind, group.size, len(group.patches)) == ("heads", 6, 3)


def test_attention_of_einsum():
    body = (
        HEADS + 's = Einsum<equation="bhid,bhjd->bhij">(q, k) p = Softmax(s) '
        'd = Einsum<equation="bhij,bhjd->bihd">(p, v) y = Einsum<equation="bihd,hdo->bio">(d, wo)'
    )
    weights = {**LINEAR, "wk": (8, 24), "wv": (8, 24), "sk": ([0, 0, 6, 4],),
               "sv": ([0, 0, 6, 4],), "wo": (6, 4, 3)}  # fmt: skip
    weights.pop("so")
    found = analyse(plain_graph(model(body, TOKENS, **weights)))
    (group,) = found.groups
    assert (group.kind, group.size) == ("heads", 6)
    assert difference(found, kept_units(found.groups)) < 1e-5
    whole = sliced(found, {group.name: np.ones(6, bool)})
    assert sum(each.macs for each in found.work) == count_macs(whole)


def test_grouped_queries():
    # Two heads of keys and values, each for three heads of queries.
    repeat = (
        "k5 = Unsqueeze(k, ax) k6 = Expand(k5, se) k7 = Reshape(k6, sr) "
        "v5 = Unsqueeze(v, ax1) v6 = Expand(v5, se1) vv = Reshape(v6, sr1) "
        "t = Transpose<perm=[0,1,3,2]>(k7) s = MatMul(q, t) "
    )
    weights = {**LINEAR, "wk": (8, 8), "wv": (8, 8), "sk": ([0, 0, 2, 4],), "sv": ([0, 0, 2, 4],),
               "ax": ([2],), "ax1": ([2],), "se": ([1, 2, 3, 5, 4],), "se1": ([1, 2, 3, 5, 4],),
               "sr": ([-1, 6, 5, 4],), "sr1": ([-1, 6, 5, 4],)}  # fmt: skip
    found = analysed(model(HEADS + repeat + CONTEXT + "y = MatMul(e, wo)", TOKENS, **weights))
    (group,) = found.groups
    assert (group.kind, group.size) == ("heads", 2)
    assert {slot.positions.shape[1] for slot in group.slots} == {4, 12}


def test_rotary_embedding():
    rotate = (
        "fr = MatMul(pos, freq) f2 = Concat<axis=-1>(fr, fr) co = Cos(f2) si = Sin(f2) "
        "qa = Slice(q, z0, h0, l0) qb = Slice(q, h1, e1, l1) qn = Neg(qb) "
        "qr = Concat<axis=-1>(qn, qa) qc = Mul(q, co) qs = Mul(qr, si) qq = Add(qc, qs) "
        "ka = Slice(k, z2, h2, l2) kb = Slice(k, h3, e3, l3) kn = Neg(kb) "
        "kr = Concat<axis=-1>(kn, ka) kc = Mul(k, co) ks = Mul(kr, si) kk = Add(kc, ks) "
        "t = Transpose<perm=[0,1,3,2]>(kk) s = MatMul(qq, t) vv = Identity(v) "
    )
    weights = {**LINEAR, "wk": (8, 24), "wv": (8, 24), "sk": ([0, 0, 6, 4],),
               "sv": ([0, 0, 6, 4],), "freq": (1, 2)}  # fmt: skip
    for number in range(4):
        weights[f"l{number}"] = ([-1],)
    for name, value in {
        "z0": 0,
        "h0": 2,
        "h1": 2,
        "e1": 4,
        "z2": 0,
        "h2": 2,
        "h3": 2,
        "e3": 4,
    }.items():
        weights[name] = ([value],)
    proto = model(HEADS + rotate + CONTEXT + "y = MatMul(e, wo)",
                  TOKENS + ", float[N,1,5,1] pos", **weights)  # fmt: skip
    found = analysed(proto)
    (group,) = found.groups
    assert (group.kind, group.size) == ("heads", 6)


def test_norm_of_each_head():
    body = HEADS + (
        "qn = LayerNormalization<axis=-1>(q, g1, g2) t = Transpose<perm=[0,1,3,2]>(k) "
        "s = MatMul(qn, t) vv = Identity(v) "
    )
    weights = {**LINEAR, "wk": (8, 24), "wv": (8, 24), "sk": ([0, 0, 6, 4],),
               "sv": ([0, 0, 6, 4],), "g1": (4,), "g2": (4,)}  # fmt: skip
    found = analysed(model(body + CONTEXT + "y = MatMul(e, wo)", TOKENS, **weights))
    assert [(group.kind, group.size) for group in found.groups] == [("heads", 6)]


def test_channels_of_two_activations_that_are_summed_stay():
    body = (
        "q = MatMul(x, wq) k = MatMul(x, wk) t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) "
        "p = Softmax(s) v = MatMul(x, wv) c = MatMul(p, v) y = MatMul(c, wo)"
    )
    found = analysed(model(body, TOKENS, wq=(8, 6), wk=(8, 6), wv=(8, 10), wo=(10, 3)))
    assert sizes(found) == [10]


def test_embedding():
    recurrent = (
        "e = Gather(table, x) t = Transpose<perm=[1,0,2]>(e) "
        "l, h = LSTM<hidden_size=4>(t, w, r) y = Identity(h)"
    )
    proto = model(recurrent, IDS, table=(10, 8), w=(1, 16, 8), r=(1, 16, 4))
    assert sizes(analysed(proto)) == [8]  # hidden units are the output
    linear = model("e = Gather(table, x) y = MatMul(e, w)", IDS, table=(10, 8), w=(8, 3))
    assert sizes(analysed(linear)) == [8]


def test_values_that_a_subgraph_reads_stay():
    body = f"{CONV} r = Relu(a) c = ReduceMax<keepdims=0>(x) t = Cast<to=9>(c) z = Abs(r) {READ}"
    proto = model(body, **SHAPES)
    branch = onnx.parser.parse_graph("g () => (float[N,8,6,6] o) { o = Neg(r) }")
    node = helper.make_node("If", ["t"], ["z"], then_branch=branch, else_branch=branch)
    proto.graph.node[4].CopyFrom(node)
    assert not analysed(proto).groups


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(op, gates, directions):
    direction = "bidirectional" if directions == 2 else "forward"
    body = (
        f"h = MatMul(x, w1) t = Transpose<perm=[1,0,2]>(h) q = {op}<hidden_size=6, "
        f'direction="{direction}">(t, w, r, b) v = Transpose<perm=[2,0,1,3]>(q) '
        "f = Reshape(v, s) y = MatMul(f, w2)"
    )
    rows = gates * 6
    weights = {
        "w1": (8, 10), "w": (directions, rows, 10), "r": (directions, rows, 6),
        "b": (directions, 2 * rows), "s": ([0, 0, -1],), "w2": (6 * directions, 4),
    }  # fmt: skip
    assert sizes(analysed(model(body, TOKENS, **weights))) == [6, 10]


@pytest.mark.parametrize(
    ("equation", "terms"),
    [("nld,dhe->nlhe", 8 * 2 * 3 * 5), ("...d,dhe->...he", 8 * 2 * 3 * 5)],
)
def test_macs_of_an_einsum_are_those_that_the_file_is_counted_with(equation, terms):
    body = (
        f'h = Einsum<equation="{equation}">(x, w1) r = Relu(h) '
        'y = Einsum<equation="nlhe,hed->nld">(r, w2)'
    )
    proto = model(body, TOKENS, w1=(8, 2, 3), w2=(2, 3, 8))
    found = analysed(proto)
    assert sum(work.macs for work in found.work) == 2 * terms == count_macs(proto)
