"""Splitting ONNX models into segments, so that common prefixes are stored and run once."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from hwsearch.models.onnx_file import without_weights
from hwsearch.prefix_tree import PrefixNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment of one or more models, ``content`` as a model of its own.

    ``before`` is the segment whose only output is its only input, ``models`` are the names of the
    models that contain it, ``ends`` of those that end with it.
    """

    content: bytes
    before: int | None
    models: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """The nodes between two places where a single value passes; ``outputs`` pass at its end."""

    model: str
    nodes: Sequence[onnx.NodeProto]
    initializers: Sequence[onnx.TensorProto]
    outputs: Sequence[onnx.ValueInfoProto]


def shared_segments(models: Mapping[str, onnx.ModelProto]) -> list[Segment]:
    """Split models where common prefixes end; return each segment after its predecessor.

    Prefixes are common if nodes and numbers are equal. A model is split only where a single value
    of known type and rank passes and only a convolution reads it: runtimes fuse what follows a
    convolution, such as a residual sum, so that any other split could change the last bits of a
    result. All models take the same inputs.
    """
    if not models:
        return []
    tree, first = PrefixNode[_Piece](), next(iter(models.values()))
    for name, model in models.items():
        tree.insert(_pieces(name, model))
    segments: list[Segment] = []
    waiting: list[tuple[PrefixNode[_Piece], int | None]] = [(tree, None)]
    while waiting:
        parent, before = waiting.pop()
        inputs = parent.items[0].outputs if parent.items else first.graph.input
        for child in parent.children.values():
            nodes = child.segment()
            model = _model(first, inputs, [node.items[0] for node in nodes])
            content = model.SerializeToString(deterministic=True)
            names = tuple(piece.model for piece in child.items)
            ends = tuple(piece.model for piece in nodes[-1].ends)
            waiting.append((nodes[-1], len(segments)))
            segments.append(Segment(content=content, before=before, models=names, ends=ends))
    return segments


def _pieces(name: str, model: onnx.ModelProto) -> Iterator[tuple[bytes, _Piece]]:
    """Yield the pieces of a model, each with a digest of its nodes and weights."""
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(without_weights(model)).graph.value_info
    last_use = {name: at for at, node in enumerate(graph.node) for name in node.input}
    takers = Counter(name for node in graph.node for name in node.input)
    convolved = {node.input[0] for node in graph.node if node.op_type == "Conv"}
    known = {
        value.name: value
        for value in inferred
        if value.name in convolved and takers[value.name] == 1
        if value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape")
    }
    last_use |= {value.name: len(graph.node) for value in graph.output}
    setting = f"{model.ir_version} {[(o.domain, o.version) for o in model.opset_import]}"
    live = {value.name for value in graph.input} - initializers.keys()
    begin = 0
    for at, node in enumerate(graph.node):
        live |= {name for name in node.output if name in last_use}
        live -= {name for name in node.input if last_use[name] <= at}
        done = at == len(graph.node) - 1
        if not done and (len(live) > 1 or not live <= known.keys()):
            continue
        nodes = graph.node[begin : at + 1]
        used = dict.fromkeys(name for each in nodes for name in each.input)
        tensors = [initializers[name] for name in used if name in initializers]
        outputs = list(graph.output) if done else [known[name] for name in live]
        digest = _digest(setting, nodes, tensors, outputs)
        yield digest, _Piece(name, nodes, tensors, outputs)
        begin = at + 1


def _digest(
    setting: str,
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> bytes:
    digest = hashlib.sha256(setting.encode())
    for messages in (nodes, tensors, outputs):
        for message in messages:
            content = message.SerializeToString(deterministic=True)
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
    return digest.digest()


def _model(
    like: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto], pieces: Sequence[_Piece]
) -> onnx.ModelProto:
    """Return pieces as a model with these inputs."""
    model = onnx.ModelProto(ir_version=like.ir_version, opset_import=like.opset_import)
    model.graph.name = like.graph.name
    model.graph.input.extend(inputs)
    model.graph.output.extend(pieces[-1].outputs)
    for piece in pieces:
        model.graph.node.extend(piece.nodes)
    tensors = {tensor.name: tensor for piece in pieces for tensor in piece.initializers}
    model.graph.initializer.extend(tensors.values())
    return model
