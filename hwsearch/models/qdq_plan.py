"""Which tensors of a graph are quantised, and how: the rules of static int8 by operator.

They are those of ONNX Runtime's static quantiser (`onnxruntime.quantization`, QDQ, weights per
channel), so that its files and ours are equal.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count

import onnx
from onnx import TensorProto

_REMOVABLE = ("Clip", "Relu")  # a quantised output of the node before them has the same bounds
# Values are some of the input's, or between them, and keep its scale.
_DIRECT = (
    "AveragePool", "Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "TopK",
    "Transpose", "Unsqueeze",
)  # fmt: skip
# All inputs and outputs get scales of their own.
_PLAIN = (
    "Add", "ArgMax", "Concat", "CumSum", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid",
    "Softmax",
)  # fmt: skip
_LINEAR = ("Conv", "ConvTranspose", "Gemm")
_OTHER = ("Gather", "GatherElements", "MatMul", "Pad", "Split", "Where")
QUANTIZED = frozenset((*_REMOVABLE, *_DIRECT, *_PLAIN, *_LINEAR, *_OTHER))


@dataclass(slots=True)
class Marked:
    """How a tensor is quantised.

    Attributes:
        weight: Whether it is a constant with the type of weights, and not of activations.
        axis: The axis of a weight along which every index has its own scale.
        scale_of: The tensor whose scale it shares.
    """

    weight: bool = False
    axis: int | None = None
    scale_of: str | None = None


@dataclass(frozen=True, slots=True)
class Bias:
    """A bias in 32 bits, whose scale is the product of those of an input and a weight."""

    constant: str
    data: str
    weight: str
    beta: float


class Plan:
    """What becomes of the tensors of a float32 graph if some of its nodes are quantised.

    Attributes:
        tensors: Quantised tensors, by name.
        biases: Biases, by their names in the new graph.
        bias_of: First output of a node -> the name of its bias in the new graph.
        removed: First outputs of nodes that are left out.
        renamed: Outputs that take the names of those of nodes left out.
    """

    def __init__(
        self, model: onnx.ModelProto, activations: Collection[str], *, symmetric: bool
    ) -> None:
        """Begin with nothing quantised.

        Args:
            model: A float32 model.
            activations: Its float32 values between nodes.
            symmetric: Whether activations have no zero points; a Relu then is left where it is.
        """
        self._symmetric = symmetric
        self.constants = {
            tensor.name: tensor
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }
        self._floats = {*activations, *self.constants}
        self._uses = Counter(name for node in model.graph.node for name in read_by(node))
        self._outer = {value.name for value in (*model.graph.input, *model.graph.output)}
        self.tensors: dict[str, Marked] = {}
        self.biases: dict[str, Bias] = {}
        self.bias_of: dict[str, str] = {}
        self.removed: set[str] = set()
        self.renamed: dict[str, str] = {}

    def feeds_one(self, name: str) -> bool:
        """Return whether a tensor is read by exactly one node."""
        return self._uses[name] == 1

    def add(self, node: onnx.NodeProto) -> None:
        """Mark what a node reads and makes; nodes come in the order of the graph."""
        if node.op_type in _LINEAR:
            self._add_linear(node)
        elif node.op_type in _REMOVABLE:
            self._add_removable(node)
        elif node.op_type in _DIRECT:
            if node.input[0] in self.tensors:
                self._share(node, node.output[:1])
        elif node.op_type in _PLAIN:
            self._own(*node.input, *node.output)
        elif node.op_type == "MatMul":
            for name in (*node.input, *node.output):
                if name in self.constants:
                    self._weight(name, 1)
                else:
                    self._own(name)
        elif node.op_type == "Split":
            if node.input[0] not in self.tensors:
                self._own(node.input[0])
            self._share(node, node.output)
        elif node.op_type == "Where":
            if node.input[1] in self.tensors and node.input[2] in self.tensors:
                self._own(*node.output)
        elif node.op_type == "Pad":
            self._own(*node.input)
            if self._pads_with_zeros_or_inputs(node):
                self._share(node, node.output)
            else:
                self._own(*node.output)
        else:  # Gather, GatherElements
            if node.input[0] in self.constants:
                self._own(node.input[0])
            if node.input[0] in self.tensors:
                self._share(node, node.output)

    def made_name(self, name: str) -> str:
        """Return the name that an output of a node has in the new graph."""
        while name in self.renamed:
            name = self.renamed[name]
        return name

    def source(self, name: str) -> str:
        """Return the tensor whose scale a tensor has: its own, or that of the one it is from."""
        while (provider := self.tensors[name].scale_of) is not None:
            name = self.made_name(provider)
        return name

    def _own(self, *names: str) -> None:
        for name in names:
            if name in self._floats:
                self.tensors.setdefault(name, Marked())

    def _share(self, node: onnx.NodeProto, outputs: Collection[str]) -> None:
        for name in outputs:
            if name in self._floats:
                self.tensors[name] = Marked(scale_of=node.input[0])

    def _weight(self, name: str, axis: int) -> None:
        if name not in self.constants:
            return
        if axis < len(self.constants[name].dims):
            self.tensors[name] = Marked(weight=True, axis=axis)
        else:
            self.tensors.setdefault(name, Marked(weight=True))

    def _add_linear(self, node: onnx.NodeProto) -> None:
        data, weight, *rest = node.input
        self._own(data, node.output[0])
        attributes = {each.name: each for each in node.attribute}
        transposed = "transB" in attributes and bool(attributes["transB"].i)
        self._weight(weight, 0 if node.op_type == "Conv" or transposed else 1)
        constant = self.constants.get(rest[0]) if rest else None
        if constant is None or data not in self.tensors or weight not in self.tensors:
            return
        name, copies = constant.name, count()
        while name in self.biases:  # another node reads it, and has other scales
            name = f"{constant.name}{next(copies)}"
        beta = attributes["beta"].f if "beta" in attributes else 1.0
        self.biases[name] = Bias(constant.name, data, weight, beta)
        self.bias_of[node.output[0]] = name

    def _add_removable(self, node: onnx.NodeProto) -> None:
        before, after = node.input[0], node.output[0]
        if before not in self.tensors:
            return
        alone = self.feeds_one(before) and before not in self._outer
        if alone and not self._symmetric and before not in self.constants:
            self.removed.add(after)
            self.renamed[before] = after
            self.tensors.pop(before, None)
        else:
            self._own(before)
        self._own(after)

    def _pads_with_zeros_or_inputs(self, node: onnx.NodeProto) -> bool:
        mode = next((each.s for each in node.attribute if each.name == "mode"), b"constant")
        if mode != b"constant":
            return True
        if len(node.input) < 3 or not node.input[2]:
            return True
        constant = self.constants.get(node.input[2])
        return constant is not None and not onnx.numpy_helper.to_array(constant).any()


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those of the graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from read_by(inner)
