"""Small trained-like models with hand-written groups and branches: CNNs, an MLP, a transformer.

The weights are random. ``MODELS`` maps names to functions that return a `Structure`; `samples`
draws inputs for any of them, `full_model` adds the weights to a graph.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hwsearch.elastic.graph import Branch, Graph, Group, Patch, Slot, Structure, Work

OPSET = 17
HEADS, HEAD_DIM, TOKENS, FFN = 4, 6, 7, 40
WIDTH = HEADS * HEAD_DIM


class Builder:
    """Collects nodes and weights of a graph; node names equal the names of their outputs."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.weights[name] = array
        return name

    def normal(self, name: str, *shape: int, scale: float | None = None, mean: float = 0) -> str:
        scale = (2 / np.prod(shape[1:])) ** 0.5 if scale is None else scale
        drawn = mean + scale * self.rng.standard_normal(shape)
        return self.constant(name, drawn.astype(np.float32))

    def conv(
        self, x: str, name: str, channels: tuple[int, int], kernel: int = 3, **attributes: Any
    ) -> str:
        groups = attributes.get("group", 1)
        weight = self.normal(f"{name}.weight", channels[1], channels[0] // groups, kernel, kernel)
        bias = self.normal(f"{name}.bias", channels[1], scale=0.1)
        pads = [kernel // 2] * 4
        return self.op("Conv", [x, weight, bias], name, pads=pads, **attributes)

    def linear(self, x: str, name: str, sizes: tuple[int, int]) -> str:
        """Return ``x W + b`` as MatMul and Add."""
        weight = self.normal(f"{name}.weight", *sizes, scale=sizes[0] ** -0.5)
        bias = self.normal(f"{name}.bias", sizes[1], scale=0.1)
        return self.op("Add", [self.op("MatMul", [x, weight], f"{name}.matmul"), bias], name)

    def structure(
        self,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Sequence[str],
        groups: tuple[Group, ...],
        branches: tuple[Branch, ...] = (),
        work: tuple[Work, ...] = (),
    ) -> Structure:
        """Return the structure; the shapes of ``inputs`` are without the batch."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            [_value(name, ("N", *shape)) for name, shape in inputs.items()],
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                for name in outputs
            ],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        proto.ir_version = 9
        digest = hashlib.sha256(proto.SerializeToString())
        for array in self.weights.values():
            digest.update(array.tobytes())
        found = Graph(
            proto=proto, weights=self.weights, origins={}, shapes={}, digest=digest.hexdigest()
        )
        shapes = _shapes(full_model(found))
        for value in proto.graph.output:
            value.CopyFrom(_value(value.name, ("N", *shapes[value.name][1:])))
        found = Graph(
            proto=proto,
            weights=self.weights,
            origins={},
            shapes=shapes,
            digest=digest.hexdigest(),
        )
        return Structure(graph=found, groups=groups, branches=branches, work=work)


def _value(name: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))


def full_model(graph: Graph) -> onnx.ModelProto:
    """Return the graph's model with its weights as initialisers."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.proto)
    for name, array in graph.weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    one = onnx.ModelProto()
    one.CopyFrom(model)
    for value in one.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(one, strict_mode=True, data_prop=True).graph
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def samples(structure: Structure, count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Draw correlated normal samples of every input; an attention mask keeps at least 2 tokens."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, NDArray[Any]] = {}
    for value in structure.graph.proto.graph.input:
        shape = structure.graph.shapes[value.name][1:]
        if value.name == "attention_mask":
            lengths = rng.integers(2, shape[0] + 1, size=(count, 1))
            drawn[value.name] = (np.arange(shape[0]) < lengths).astype(np.float32)
            continue
        size = int(np.prod(shape))
        mix = rng.standard_normal((size, size)) * 0.9 ** np.arange(size)[:, None]
        noise = rng.standard_normal((count, size))
        x = noise @ mix * (size**-0.5) + 0.3 * rng.standard_normal((count, size))
        drawn[value.name] = x.reshape(count, *shape).astype(np.float32)
    return drawn


def slots(
    names: Mapping[str, tuple[str, int, Any]], size: int, width: int = 1
) -> tuple[Slot, ...]:
    """Return the slots at positions ``unit * width ...`` of a group.

    ``names`` maps a weight to (node, axis, role), or (node, axis, role, first position).
    """
    found = []
    for weight, (node, axis, role, *first) in names.items():
        positions = np.arange(size * width).reshape(size, width) + (first[0] if first else 0)
        found.append(Slot(weight=weight, axis=axis, positions=positions, node=node, role=role))
    return tuple(found)


def _conv_out(name: str) -> dict[str, tuple[str, int, str]]:
    return {f"{name}.weight": (name, 0, "out"), f"{name}.bias": (name, 0, "out")}


def _reads(name: str, first: int = 0) -> dict[str, tuple[str, int, str, int]]:
    return {f"{name}.weight": (name, 1, "in", first)}


def _group(name: str, kind: str, size: int, names: Mapping[str, Any], width: int = 1) -> Group:
    return Group(name=name, kind=kind, size=size, slots=slots(names, size, width))


def residual_cnn(seed: int = 0) -> Structure:
    """A stem, a block of two 3x3 convolutions and an addition, a strided layer, a head."""
    b = Builder(seed)
    stem = b.op("Relu", [b.conv("image", "stem", (3, 16))], "stem.relu")
    inner = b.op("Relu", [b.conv(stem, "block.conv1", (16, 24))], "block.relu")
    added = b.op("Add", [b.conv(inner, "block.conv2", (24, 16)), stem], "block.add")
    out = b.op("Relu", [added], "block.out")
    down = b.op("Relu", [b.conv(out, "down", (16, 32), strides=[2, 2])], "down.relu")
    flat = b.op("Flatten", [b.op("GlobalAveragePool", [down], "pool")], "flat")
    weight = b.normal("head.weight", 10, 32, scale=0.4)
    bias = b.normal("head.bias", 10, scale=0.1)
    b.op("Gemm", [flat, weight, bias], "head", transB=1)
    residual = {**_conv_out("stem"), **_conv_out("block.conv2")}
    groups = (
        _group("stem.width", "residual", 16, {**residual, **_both("block.conv1", "down")}),
        _group("block.width", "inner", 24, {**_conv_out("block.conv1"), **_reads("block.conv2")}),
        _group("down.width", "inner", 32, {**_conv_out("down"), **_reads("head")}),
    )
    branch = Branch(
        name="block.keep",
        node="block.add",
        side=0,
        nodes=("block.conv1", "block.relu", "block.conv2"),
    )
    work = (
        Work(node="stem", macs=3 * 16 * 9 * 144, factors=((16, {"stem.width": 1}),)),
        Work(
            node="block.conv1",
            macs=16 * 24 * 9 * 144,
            factors=((16, {"stem.width": 1}), (24, {"block.width": 1})),
        ),
        Work(
            node="block.conv2",
            macs=16 * 24 * 9 * 144,
            factors=((24, {"block.width": 1}), (16, {"stem.width": 1})),
        ),
        Work(
            node="down",
            macs=16 * 32 * 9 * 36,
            factors=((16, {"stem.width": 1}), (32, {"down.width": 1})),
        ),
        Work(node="head", macs=320, factors=((32, {"down.width": 1}),)),
    )
    return b.structure({"image": (3, 12, 12)}, ["head"], groups, (branch,), work)


def _both(*names: str) -> dict[str, tuple[str, int, str, int]]:
    return {key: value for name in names for key, value in _reads(name).items()}


def mobile_cnn(seed: int = 0) -> Structure:
    """An inverted residual block with a depthwise convolution, and a batch norm after a ReLU.

    The units of both inputs of a Concat are read by ``mix``; ``grouped`` has two convolution
    groups, whose channels are removed in pairs; ``up`` is a transposed convolution without bias.
    """
    b = Builder(seed)
    stem = b.op("Relu", [b.conv("image", "stem", (3, 8))], "stem.relu")
    wide = b.op("Relu", [b.conv(stem, "expand", (8, 24), kernel=1)], "expand.relu")
    deep = b.op("Relu", [b.conv(wide, "depthwise", (24, 24), group=24)], "depthwise.relu")
    added = b.op("Add", [stem, b.conv(deep, "project", (24, 8), kernel=1)], "add")
    side = b.op("Relu", [b.conv(added, "side", (8, 12), kernel=1)], "side.relu")
    norm = [b.normal(f"norm.{n}", 12, scale=0.1, mean=m) for n, m in (("scale", 1), ("shift", 0))]
    norm += [b.constant(f"norm.{n}", np.full(12, v, np.float32)) for n, v in _RUNNING]
    normed = b.op("BatchNormalization", [side, *norm], "norm")
    both = b.op("Concat", [normed, added], "concat", axis=1)
    mix = b.op("Relu", [b.conv(both, "mix", (20, 16))], "mix.relu")
    grouped = b.op("Relu", [b.conv(mix, "grouped", (16, 12), group=2)], "grouped.relu")
    up = b.normal("up.weight", 12, 6, 2, 2)
    b.op("ConvTranspose", [grouped, up], "up", strides=[2, 2], kernel_shape=[2, 2])
    through = {"depthwise.weight": ("depthwise", 0, "through")}
    through["depthwise.bias"] = ("depthwise", 0, "through")
    norms = {f"norm.{n}": ("norm", 0, "through") for n in ("scale", "shift", "mean", "var")}
    stream = {**_conv_out("stem"), **_conv_out("project"), **_reads("expand"), **_reads("side")}
    # Position p of the weight's second axis is channel p of both convolution groups.
    tied = np.arange(8).reshape(8, 1)
    pairs = np.stack([np.arange(8), np.arange(8) + 8], axis=1)
    mixed = (
        Slot(weight="mix.weight", axis=0, positions=pairs, node="mix", role="out"),
        Slot(weight="mix.bias", axis=0, positions=pairs, node="mix", role="out"),
        Slot(weight="grouped.weight", axis=1, positions=tied, node="grouped", role="in"),
    )
    groups = (
        _group("stem.width", "residual", 8, {**stream, **_reads("mix", 12)}),
        _group(
            "expand.width", "inner", 24, {**_conv_out("expand"), **through, **_reads("project")}
        ),
        _group("side.width", "inner", 12, {**_conv_out("side"), **norms, **_reads("mix")}),
        Group(name="mix.width", kind="inner", size=8, slots=mixed),
    )
    branch = Branch(
        name="block.keep",
        node="add",
        side=1,
        nodes=("expand", "expand.relu", "depthwise", "depthwise.relu", "project"),
    )
    # Depthwise: the attribute `group` shrinks with the units.
    patch = Patch(target="depthwise", attribute="group", amounts=np.ones(24, np.int64))
    groups = (groups[0], _with(groups[1], patch), *groups[2:])
    return b.structure({"image": (3, 9, 9)}, ["up"], groups, (branch,))


_RUNNING = (("mean", 0.4), ("var", 0.6))


def _with(group: Group, *patches: Patch) -> Group:
    return Group(
        name=group.name, kind=group.kind, size=group.size, slots=group.slots, patches=patches
    )


def mlp(seed: int = 0) -> Structure:
    """Three linear layers; the second is ``x W`` without a bias."""
    b = Builder(seed)
    w1 = b.normal("fc1.weight", 32, 12, scale=0.3)
    fc1 = b.op("Gemm", ["x", w1, b.normal("fc1.bias", 32, scale=0.3)], "fc1", transB=1)
    w2 = b.normal("fc2.weight", 32, 20, scale=0.2)
    fc2 = b.op("MatMul", [b.op("Relu", [fc1], "relu1"), w2], "fc2")
    w3 = b.normal("fc3.weight", 20, 5, scale=0.3)
    b.op("Gemm", [b.op("Relu", [fc2], "relu2"), w3, b.normal("fc3.bias", 5)], "fc3", alpha=0.5)
    first = {
        "fc1.weight": ("fc1", 0, "out"),
        "fc1.bias": ("fc1", 0, "out"),
        "fc2.weight": ("fc2", 0, "in"),
    }
    second = {"fc2.weight": ("fc2", 1, "out"), "fc3.weight": ("fc3", 0, "in")}
    groups = (_group("fc1.width", "ffn", 32, first), _group("fc2.width", "ffn", 20, second))
    return b.structure({"x": (12,)}, ["fc3"], groups)


def transformer(seed: int = 0) -> Structure:
    """One layer of self-attention and feed-forward, norms after the additions, masked tokens."""
    b = Builder(seed)
    x = "tokens"
    shape = b.constant("split.shape", np.array([0, 0, HEADS, HEAD_DIM]))
    queries, keys, values = (
        b.op(
            "Transpose",
            [b.op("Reshape", [b.linear(x, n, (WIDTH, WIDTH)), s], f"{n}.split")],
            f"{n}.heads",
            perm=perm,
        )
        for n, perm, s in (
            ("query", [0, 2, 1, 3], shape),
            ("key", [0, 2, 3, 1], b.constant("key.shape", b.weights[shape].copy())),
            ("value", [0, 2, 1, 3], b.constant("value.shape", b.weights[shape].copy())),
        )
    )
    scaled = b.op("MatMul", [queries, keys], "scores")
    scaled = b.op("Mul", [scaled, b.constant("scale", np.float32([HEAD_DIM**-0.5]))], "scaled")
    lacking = b.op("Sub", ["attention_mask", b.constant("one", np.float32([1]))], "lacking")
    bias = b.op("Mul", [lacking, b.constant("large", np.float32([1e4]))], "mask.bias")
    axes = b.constant("mask.axes", np.array([1, 2]))
    masked = b.op("Add", [scaled, b.op("Unsqueeze", [bias, axes], "mask.rows")], "masked")
    mixed = b.op("MatMul", [b.op("Softmax", [masked], "softmax", axis=-1), values], "mixed")
    joined = b.op("Transpose", [mixed], "joined", perm=[0, 2, 1, 3])
    merged = b.constant("merge.shape", np.array([0, 0, WIDTH]))
    context = b.op("Reshape", [joined, merged], "context")
    first = b.op("Add", [b.linear(context, "attention.output", (WIDTH, WIDTH)), x], "add1")
    first = b.op("LayerNormalization", [first, *_norm(b, "norm1")], "norm1", axis=-1)
    hidden = b.op("Relu", [b.linear(first, "ffn.in", (WIDTH, FFN))], "ffn.relu")
    second = b.op("Add", [b.linear(hidden, "ffn.out", (FFN, WIDTH)), first], "add2")
    b.op("LayerNormalization", [second, *_norm(b, "norm2")], "norm2", axis=-1)
    names: dict[str, Any] = {"attention.output.weight": ("attention.output.matmul", 0, "in")}
    for name in ("query", "key", "value"):
        names[f"{name}.weight"] = (f"{name}.matmul", 1, "out")
        names[f"{name}.bias"] = (name, 0, "out")
    per_head, per_unit = np.ones(HEADS, np.int64), np.full(HEADS, HEAD_DIM)
    patches = [
        Patch(target=target, position=2, amounts=per_head)
        for target in ("split.shape", "key.shape", "value.shape")
    ]
    heads = _group("attention.heads", "heads", HEADS, names, HEAD_DIM)
    ffn = {
        "ffn.in.weight": ("ffn.in.matmul", 1, "out"),
        "ffn.in.bias": ("ffn.in", 0, "out"),
        "ffn.out.weight": ("ffn.out.matmul", 0, "in"),
    }
    groups = (
        _with(heads, *patches, Patch(target="merge.shape", position=2, amounts=per_unit)),
        _group("ffn.width", "ffn", FFN, ffn),
    )
    branch = Branch(
        name="ffn.keep",
        node="add2",
        side=0,
        nodes=("ffn.in.matmul", "ffn.in", "ffn.relu", "ffn.out.matmul", "ffn.out"),
    )
    inputs = {"tokens": (TOKENS, WIDTH), "attention_mask": (TOKENS,)}
    return b.structure(inputs, ["norm2"], groups, (branch,))


def _norm(b: Builder, name: str) -> list[str]:
    return [b.normal(f"{name}.scale", WIDTH, scale=0.1, mean=1), b.normal(f"{name}.shift", WIDTH)]


MODELS: dict[str, Callable[..., Structure]] = {
    "residual_cnn": residual_cnn,
    "mobile_cnn": mobile_cnn,
    "mlp": mlp,
    "transformer": transformer,
}
