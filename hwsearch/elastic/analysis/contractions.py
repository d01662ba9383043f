"""Rules for sums of products over named axes: MatMul, Gemm and Einsum."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from hwsearch.elastic.analysis.atoms import Layer, varying
from hwsearch.elastic.analysis.flow import (
    Flow,
    Layers,
    NotUnderstoodError,
    Product,
    Rules,
    attributes,
    known_shape,
)
from hwsearch.elastic.graph import Role

_NO_WEIGHTS = "two activations are multiplied and summed over them"


class _Space:
    """All letters of a contraction as axes: each operand has size 1 on those it lacks."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.letters = list(sizes)
        self.sizes = [sizes[letter] for letter in self.letters]

    def axes(self, letters: str) -> list[int]:
        """Return the axes of some letters."""
        return [self.letters.index(letter) for letter in letters]

    def enter(self, layer: Layer, letters: str) -> Layer:
        """Return a layer of a value with these letters as axes, in the space."""
        shape = [1] * len(self.letters)
        for letter, size in zip(letters, layer.shape, strict=True):
            shape[self.letters.index(letter)] = size
        order = np.argsort(self.axes(letters))
        return layer.transpose(order).reshape(shape)

    def leave(self, layer: Layer, letters: str) -> Layer:
        """Return a layer in the space as one of a value with these letters."""
        absent = [axis for axis, each in enumerate(self.letters) if each not in letters]
        rest = [each for each in self.letters if each in letters]
        return layer.squeeze(tuple(absent)).transpose([rest.index(each) for each in letters])

    def shape(self, letters: str, own: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of an operand in the space."""
        sizes = dict(zip(letters, own, strict=True))
        return tuple(sizes.get(letter, 1) for letter in self.letters)


def contraction(
    flow: Flow, node: onnx.NodeProto, terms: Sequence[str], output: str
) -> list[Layer]:
    """Return the layers of a sum of products of the first two inputs of a node.

    ``terms`` has one letter per axis for each operand, none twice; ``output`` those of the result.
    """
    names = node.input[:2]
    shapes = [known_shape(flow, name) for name in names]
    sizes: dict[str, int] = {}
    for letters, own in zip(terms, shapes, strict=True):
        for letter, size in zip(letters, own, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    space = _Space(sizes)
    summed = {letter for letter in sizes if letter not in output}
    entered = [
        tuple(space.enter(layer, letters) for layer in flow.layers(name))
        for name, letters in zip(names, terms, strict=True)
    ]
    own_shapes = [space.shape(letters, own) for letters, own in zip(terms, shapes, strict=True)]
    weights = [number for number, name in enumerate(names) if flow.is_constant(name)]
    if len(weights) == 1:
        found = _with_weight(flow, node, space, summed, weights[0], terms, entered, own_shapes)
    else:
        found = _of_activations(flow, node, space, summed, entered, own_shapes)
    known = [layer for layers in (*entered, found) for layer in layers]
    _count(flow, node, space, known)
    return [space.leave(layer, output) for layer in found]


def _with_weight(
    flow: Flow,
    node: onnx.NodeProto,
    space: _Space,
    summed: set[str],
    weight: int,
    terms: Sequence[str],
    entered: Sequence[Layers],
    shapes: Sequence[tuple[int, ...]],
) -> list[Layer]:
    name, letters = node.input[weight], terms[weight]
    value, others = entered[1 - weight], terms[1 - weight]
    own = shapes[weight]
    axes = [
        letters.index(letter) if letter in letters and own[axis] > 1 else None
        for axis, letter in enumerate(space.letters)
    ]
    inside = set(space.axes("".join(summed)))
    roles: list[Role] = ["in" if axis in inside else "through" for axis in range(len(own))]
    left: list[Layer] = []
    for layer in value:
        if set(varying(layer)) <= inside:
            missing = [axis for axis in varying(layer) if axes[axis] is None]
            if missing:
                flow.atoms.pin(layer, node.name, "it sums over them without weights")
            else:
                flow.slot(name, layer, axes, node, roles)
            continue
        kept = flow.collapse(layer, inside, node, "it sums over them")
        if kept is not None:
            left.append(kept)
    # New atoms for what only the weight has, for each index of a batch axis of the weight.
    new = [letter for letter in letters if letter not in others and letter not in summed]
    batch = [letter for letter in letters if letter in others and letter not in summed]
    shape = [
        own[axis] if letter in (*new, *batch) else 1 for axis, letter in enumerate(space.letters)
    ]
    fresh: Layers = ()
    if any(own[axis] > 1 for axis in space.axes("".join(new))) and not flow.is_shared(name):
        layer = flow.atoms.new(math.prod(shape)).reshape(shape)
        flow.slot(name, layer, axes, node, "out")
        fresh = (layer,)
    result_shape = [1 if axis in inside else size for axis, size in enumerate(space.sizes)]
    parts = [("", shapes[1 - weight], tuple(left)), ("" if fresh else name, shape, fresh)]
    if fresh or not left:
        return flow.merge(parts, result_shape, node)
    return _through(flow, node, name, left, axes)


def _through(
    flow: Flow,
    node: onnx.NodeProto,
    weight: str,
    layers: Sequence[Layer],
    axes: Sequence[int | None],
) -> list[Layer]:
    """Record slots on the batch axes of a weight that makes no axis of its own."""
    for layer in layers:
        if any(axes[axis] is not None for axis in varying(layer)):
            flow.slot(weight, layer, axes, node, "through")
    return list(layers)


def _of_activations(
    flow: Flow,
    node: onnx.NodeProto,
    space: _Space,
    summed: set[str],
    entered: Sequence[Layers],
    shapes: Sequence[tuple[int, ...]],
) -> list[Layer]:
    inside = set(space.axes("".join(summed)))
    kept = []
    for layers in entered:
        left = []
        for layer in layers:
            found = flow.collapse(layer, inside, node, _NO_WEIGHTS)
            if found is not None:
                left.append(found)
                if found is not layer:
                    flow.heads.append(found)
        kept.append(tuple(left))
    result_shape = [1 if axis in inside else size for axis, size in enumerate(space.sizes)]
    operands = [
        (name, tuple(1 if a in inside else n for a, n in enumerate(own)), layers)
        for name, own, layers in zip(("", ""), shapes, kept, strict=True)
    ]
    return flow.merge(operands, result_shape, node)


def _count(flow: Flow, node: onnx.NodeProto, space: _Space, layers: Sequence[Layer]) -> None:
    found = []
    for axis in range(len(space.sizes)):
        found.append(tuple((layer, axis) for layer in layers if layer.shape[axis] > 1))
    elastic = [axis for axis, each in enumerate(found) if each]
    constant = math.prod(n for axis, n in enumerate(space.sizes) if axis not in elastic)
    flow.products.append(
        Product(
            node.name,
            constant,
            tuple(space.sizes[axis] for axis in elastic),
            tuple(found[axis] for axis in elastic),
        )
    )


def matmul(flow: Flow, node: onnx.NodeProto) -> None:
    """Name the axes as numpy.matmul does."""
    left, right = (len(known_shape(flow, name)) for name in node.input[:2])
    batch = "abcdefghij"
    if max(left, right) > len(batch):
        raise NotUnderstoodError("it has too many axes")
    terms = [
        "k" if left == 1 else batch[len(batch) - left + 2 :] + "mk",
        "k" if right == 1 else batch[len(batch) - right + 2 :] + "kn",
    ]
    most = max(left, right)
    output = batch[len(batch) - most + 2 :] if most > 2 else ""
    output += ("m" if left > 1 else "") + ("n" if right > 1 else "")
    flow.give(node.output[0], contraction(flow, node, terms, output), node.name)


def gemm(flow: Flow, node: onnx.NodeProto) -> None:
    """Name the axes by the attributes; the bias belongs to what is produced."""
    given = attributes(node)
    terms = ["km" if given.get("transA") else "mk", "nk" if given.get("transB") else "kn"]
    found = contraction(flow, node, terms, "mn")
    if len(node.input) > 2 and node.input[2]:
        shape = known_shape(flow, node.output[0])
        bias = (node.input[2], known_shape(flow, node.input[2]), flow.layers(node.input[2]))
        found = flow.merge([("", shape, tuple(found)), bias], shape, node, "out")
    flow.give(node.output[0], found, node.name)


def einsum(flow: Flow, node: onnx.NodeProto) -> None:
    """Name the axes as the equation does; at most two operands, no letter twice in one."""
    equation = attributes(node)["equation"].replace(" ", "")
    given, arrow, output = equation.partition("->")
    terms = given.split(",")
    ranks = [len(known_shape(flow, name)) for name in node.input]
    terms, rest = _without_ellipsis(terms, ranks)
    if arrow:
        output = output.replace("...", rest)
    else:
        joined = "".join(terms)
        single = sorted(c for c in set(joined) if joined.count(c) == 1 and c not in rest)
        output = rest + "".join(single)
    if any(len(set(term)) < len(term) for term in terms) or len(terms) > 2:
        raise NotUnderstoodError(f"the equation {equation!r} is not understood")
    if len(terms) == 2:
        found = contraction(flow, node, terms, output)
    else:
        summed = {axis for axis, letter in enumerate(terms[0]) if letter not in output}
        layers = flow.collapsed(flow.layers(node.input[0]), summed, node, "it sums over them")
        rest = "".join(letter for letter in terms[0] if letter in output)
        order = [rest.index(letter) for letter in output]
        found = [layer.squeeze(tuple(summed)).transpose(order) for layer in layers]
    flow.give(node.output[0], found, node.name)


def _without_ellipsis(terms: Sequence[str], ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return the terms with letters in place of an ellipsis, and these letters."""
    used = set("".join(terms))
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in used]
    most = max(
        (rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term),
        default=0,
    )
    rest = "".join(free[:most])
    found = []
    for term, rank in zip(terms, ranks, strict=True):
        covered = rank - len(term) + 3
        found.append(term.replace("...", rest[len(rest) - covered :] if covered > 0 else ""))
    return found, rest


RULES: Rules = {"Einsum": einsum, "Gemm": gemm, "MatMul": matmul}
