"""A supernet that writes its subnets' ONNX models itself, without PyTorch: slices of one CNN."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hwsearch.space import Architecture, Architectures, Choice, SearchSpace
from hwsearch.supernets.interface import Card, InputSpec, TensorSpec

SIDE, CLASSES = 8, 4
STEM, WIDTH, HIDDEN = 8, 8, 8
SHAPES = {
    "stem": (STEM, 3, 3, 3),
    "down": (WIDTH, STEM, 3, 3),
    "block.up": (HIDDEN, WIDTH, 1, 1),
    "block.back": (WIDTH, HIDDEN, 1, 1),
    "head": (CLASSES, WIDTH),
}
Weights = dict[str, NDArray[np.float32]]


def search_space() -> SearchSpace:
    return SearchSpace(
        [
            Choice("stem.width", (2, 4, 8)),
            Choice("down.width", (4, 8)),
            Choice("block.keep", (0, 1)),
            Choice("block.width", (2, 4, 8), ("block.keep", (1,))),
        ]
    )


def trained(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = rng.normal(0, scale, shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.3, shape[0]).astype(np.float32)
    return weights


def graph_of(weights: Weights, *, with_block: bool) -> onnx.ModelProto:
    """The network with these weights, which decide its widths."""

    def layer(kind: str, name: str, data: str, out: str, **settings: object) -> onnx.NodeProto:
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        return helper.make_node(kind, inputs, [out], name=name, **settings)

    nodes = [
        layer("Conv", "stem", "image", "a", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        layer("Conv", "down", "b", "c", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
    ]
    if with_block:
        nodes += [
            layer("Conv", "block.up", "d", "e"),
            helper.make_node("Relu", ["e"], ["f"], name="relu3"),
            layer("Conv", "block.back", "f", "g"),
            helper.make_node("Add", ["d", "g"], ["h"], name="add"),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", ["h" if with_block else "d"], ["i"], name="pool"),
        helper.make_node("Flatten", ["i"], ["j"], name="flatten"),
        layer("Gemm", "head", "j", "logits", transB=1),
    ]
    read = {name for node in nodes for name in node.input}
    image = helper.make_tensor_value_info("image", 1, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", 1, ["batch", CLASSES])
    tensors = [numpy_helper.from_array(a, name) for name, a in weights.items() if name in read]
    graph = helper.make_graph(nodes, "sliced", [image], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class SlicedSupernet:
    """Leading channels are kept; repair moves biases."""

    def __init__(self, seed: int = 0) -> None:
        self.space, self.weights = search_space(), trained(seed)
        content = b"".join(array.tobytes() for array in self.weights.values())
        self.digest = hashlib.sha256(content).hexdigest()
        self.card = Card(name="sliced", description="A CNN.", licence="none", source="a test")

    def input_spec(self, arch: Architecture) -> InputSpec:
        return InputSpec(inputs=(TensorSpec(name="image", shape=(3, SIDE, SIDE)),))

    def onnx_model(self, arch: Architecture) -> onnx.ModelProto:
        return self._sliced(arch, repaired=True)

    def reference_models(self, arch: Architecture) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        return self._sliced(arch, repaired=False), self._zeroed(arch)

    def named_weights(self, model: onnx.ModelProto) -> Mapping[str, NDArray[np.float32]]:
        return {
            f"net.{tensor.name}": numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
        }

    def refined(
        self, arch: Architecture, batches: Iterable[Mapping[str, NDArray[np.float32]]]
    ) -> onnx.ModelProto:
        """Give the scores the mean that the given model's have."""
        import onnxruntime

        model, images = self.onnx_model(arch), np.concatenate([fed["image"] for fed in batches])
        given = graph_of(self.weights, with_block=True)
        means = [
            onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"image": images})[0]
            for each in (given, model)
        ]
        shift = means[0].mean(axis=0) - means[1].mean(axis=0)
        (bias,) = (each for each in model.graph.initializer if each.name == "head.bias")
        moved = numpy_helper.to_array(bias) + shift
        bias.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), bias.name))
        return model

    def macs(self, archs: Architectures) -> NDArray[np.int64]:
        return np.array([self._costs(arch)[0] for arch in archs], np.int64)

    def params(self, archs: Architectures) -> NDArray[np.int64]:
        return np.array([self._costs(arch)[1] for arch in archs], np.int64)

    def _costs(self, arch: Architecture) -> tuple[int, int]:
        stem, down, hidden = self._widths(arch)
        half = (SIDE // 2) ** 2
        macs = stem * 27 * SIDE**2 + down * stem * 9 * half + down * CLASSES
        params = stem * 28 + down * (stem * 9 + 1) + (down + 1) * CLASSES
        if arch["block.keep"]:
            macs += 2 * hidden * down * half
            params += 2 * hidden * down + hidden + down
        return macs, params

    def _widths(self, arch: Architecture) -> tuple[int, int, int]:
        hidden = arch["block.width"] if arch["block.keep"] else HIDDEN
        return int(arch["stem.width"]), int(arch["down.width"]), int(hidden)

    def _sliced(self, arch: Architecture, *, repaired: bool) -> onnx.ModelProto:
        stem, down, hidden = self._widths(arch)
        kept = {
            "stem": (stem, 3),
            "down": (down, stem),
            "block.up": (hidden, down),
            "block.back": (down, hidden),
            "head": (CLASSES, down),
        }
        weights = {}
        for name, (out, in_) in kept.items():
            weight = self.weights[f"{name}.weight"]
            weights[f"{name}.weight"] = np.ascontiguousarray(weight[:out, :in_])
            lost = weight[:out, in_:].sum(axis=tuple(range(1, weight.ndim)))
            shift = 0.2 * lost if repaired else 0
            weights[f"{name}.bias"] = (self.weights[f"{name}.bias"][:out] + shift).astype("f4")
        return graph_of(weights, with_block=bool(arch["block.keep"]))

    def _zeroed(self, arch: Architecture) -> onnx.ModelProto:
        stem, down, hidden = self._widths(arch)
        weights = {name: array.copy() for name, array in self.weights.items()}
        readers = (("down", stem), ("block.up", down), ("head", down), ("block.back", hidden))
        for name, kept in readers:
            weights[f"{name}.weight"][:, kept:] = 0
        if not arch["block.keep"]:
            weights["block.back.weight"][:] = 0
            weights["block.back.bias"][:] = 0
        return graph_of(weights, with_block=True)


def network(checkpoint: str | None = None) -> SlicedSupernet:
    """The supernet, by a name that tests and command lines give as MODULE:FUNCTION."""
    return SlicedSupernet(int(checkpoint or 0))
