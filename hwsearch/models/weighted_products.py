"""Products of activations and constant matrices, and models with other nodes in their place."""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from hwsearch.models.onnx_file import emptied
from hwsearch.models.qdq_plan import read_by

_STANDARD = ("", "ai.onnx")
_COPIES = ("Constant", "Identity")  # left out where nothing reads them any more


@dataclass(frozen=True, slots=True)
class Product:
    """A product of an activation and a constant matrix, after which a bias may be added.

    Attributes:
        node: A MatMul, or a Gemm that equals a MatMul and an Add.
        weight: Name of the matrix in `WeightedProducts.constants`.
        transposed: Whether the matrix is (N, K), and not (K, N).
    """

    node: onnx.NodeProto
    weight: str
    transposed: bool = False

    @property
    def name(self) -> str:
        """Name of the product without its bias, as ONNX Runtime's quantiser gives it."""
        name = str(self.node.name or self.node.output[0])
        return f"{name}_MatMul" if self.node.op_type == "Gemm" else name

    @property
    def matrix(self) -> str:
        """Name of the (K, N) matrix, as ONNX Runtime's quantiser gives it."""
        return f"{self.weight}_Transposed" if self.transposed else self.weight

    @property
    def bias(self) -> str:
        """Name of what is added; empty for nothing."""
        return self.node.input[2] if len(self.node.input) > 2 else ""


Quantise = Callable[[Product], Sequence[TensorProto]]
# Writes a product: the copy to write to, the product, the names of the constants that `Quantise`
# made of its matrix, and the value to make.
Write = Callable[["ProductCopy", Product, list[str], str], None]


class WeightedProducts:
    """Products of a model whose weights are float32 matrices in the model.

    Others are left alone: products of two activations, weights with more than two axes, in
    another file or that are also inputs of the model, and Gemm nodes with factors or a transposed
    activation. Nodes in the graphs of other nodes are not looked at.

    Attributes:
        constants: Name of a float32 matrix -> its tensor. The name is that of an initialiser or
            of the output of a Constant node.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Keep a model, which must not change afterwards."""
        graph = model.graph
        self._model, self._values = model, frozenset(_value_names(graph))
        self.constants: dict[str, TensorProto] = {}
        self._fixed: set[str] = set()  # constants of any type and shape
        self._sources: dict[str, str] = {}  # outputs of Identity nodes
        inputs = {value.name for value in graph.input}
        for tensor in graph.initializer:
            if tensor.name not in inputs:
                self._add_constant(tensor.name, tensor)
        self._found: dict[str, Product] = {}
        self._quantised: dict[tuple[str, bool], Sequence[TensorProto]] = {}
        for node in graph.node:
            if (found := self._read(node)) is not None:
                self._found[node.output[0]] = found

    def names(self) -> list[str]:
        """Return the names of the nodes, in their order."""
        return [product.node.name for product in self._found.values()]

    def replaced(
        self, nodes: Collection[str] | None, quantise: Quantise, write: Write
    ) -> onnx.ModelProto:
        """Return a copy of the model with other nodes in the place of products.

        Args:
            nodes: Names of nodes; those that are no products are ignored. None for all.
            quantise: Makes the constants of a product; called once for each matrix.
            write: Writes a product; called in the order of the graph.
        """
        chosen = {
            output: product
            for output, product in self._found.items()
            if nodes is None or product.node.name in nodes
        }
        graph = self._model.graph
        needed = {value.name for value in (*graph.input, *graph.output)}
        dropped = set()
        for node in reversed(graph.node):
            if (product := chosen.get(node.output[0])) is not None:
                needed.update((node.input[0], product.bias))
            elif node.op_type in _COPIES and node.output[0] not in needed:
                dropped.add(node.output[0])
            else:
                needed.update(read_by(node))
        copy = ProductCopy(self._model, self._values)
        for node in graph.node:
            if (product := chosen.get(node.output[0])) is not None:
                if (key := (product.weight, product.transposed)) not in self._quantised:
                    self._quantised[key] = quantise(product)
                copy.replace(product, self._quantised[key], write)
            elif node.output[0] not in dropped:
                copy.made.graph.node.add().CopyFrom(node)
        for tensor in graph.initializer:
            if tensor.name in needed:
                copy.add_constant(tensor, tensor.name)
        return copy.made

    def _add_constant(self, name: str, tensor: TensorProto) -> None:
        self._fixed.add(name)
        is_matrix = len(tensor.dims) == 2 and all(tensor.dims)
        is_here = tensor.data_location != TensorProto.EXTERNAL
        if tensor.data_type == TensorProto.FLOAT and is_matrix and is_here:
            self.constants[name] = tensor

    def _read(self, node: onnx.NodeProto) -> Product | None:
        """Return the product that a node is, if it is one, and keep the constant that it makes."""
        if node.domain not in _STANDARD:
            return None
        attributes = {each.name: each for each in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            self._add_constant(node.output[0], attributes["value"].t)
        elif node.op_type == "Identity":
            self._sources[node.output[0]] = self._source(node.input[0])
        elif node.op_type in ("MatMul", "Gemm"):
            data, weight = map(self._source, node.input[:2])
            if weight not in self.constants or data in self._fixed:
                return None
            if node.op_type == "MatMul":
                return Product(node, weight)
            values = {name: helper.get_attribute_value(each) for name, each in attributes.items()}
            if values.get("alpha", 1) == values.get("beta", 1) == 1 and not values.get("transA"):
                return Product(node, weight, bool(values.get("transB")))
        return None

    def _source(self, name: str) -> str:
        return self._sources.get(name, name)


class ProductCopy:
    """A copy of a model, to which nodes and constants are added under names that are free."""

    def __init__(self, model: onnx.ModelProto, values: Collection[str]) -> None:
        """Begin with no nodes; ``values`` are names that are taken."""
        self.made = emptied(model)
        self._graph = self.made.graph
        self._values = set(values)
        self._names = {node.name for node in model.graph.node}
        self._once: dict[Hashable, list[str]] = {}

    def replace(self, product: Product, constants: Sequence[TensorProto], write: "Write") -> None:
        """Write other nodes in the place of a product."""
        output = product.node.output[0]
        before = self.value(f"{output}_MatMul") if product.bias else output
        key = product.weight, product.transposed
        weights = self.once(
            key, lambda: [self.add_constant(each, self.value(each.name)) for each in constants]
        )
        write(self, product, weights, before)
        if product.bias:
            name = f"{product.node.name or output}_Add"
            self.add_node("Add", [before, product.bias], [output], name)

    def value(self, name: str) -> str:
        """Return a name for a new value, which is the given one if that is free."""
        return _free(name, self._values)

    def once(self, key: Hashable, write: Callable[[], list[str]]) -> list[str]:
        """Return names of values that are written on the first call with a key."""
        if key not in self._once:
            self._once[key] = write()
        return self._once[key]

    def add_node(
        self, kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any
    ) -> None:
        """Add a node; ``attributes`` are its attributes and its domain."""
        name = _free(name, self._names)
        self._graph.node.append(helper.make_node(kind, inputs, outputs, name, **attributes))

    def add_constant(self, tensor: TensorProto, name: str) -> str:
        """Add a constant under a name, which is returned."""
        new = self._graph.initializer.add()
        new.CopyFrom(tensor)  # takes a third of the time of append
        new.name = name
        return name


def _free(name: str, taken: set[str]) -> str:
    """Return a name, with a number behind it if it is taken, and take it."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _value_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of inputs, constants and values, those of the graphs inside included."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _value_names(attribute.g)
