"""Names of exported models: initialisers as in the state dict, compared by value."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

Content: TypeAlias = tuple[tuple[int, ...], str, int]  # shape, type, hash of the values


def state_arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Return every tensor of the state dict as an array that shares its memory."""
    state = module.state_dict()
    return {n: t.detach().numpy() for n, t in state.items() if hasattr(t, "detach")}


def name_values(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs; another value that has one of the names gets a new one."""
    wanted = set(names.values())
    used = {name for node in _nodes(model.graph) for name in (*node.input, *node.output)}
    used |= {each.name for each in (*model.graph.initializer, *model.graph.input)} | wanted
    renamed = dict(names)
    for name in sorted(used & wanted):
        spare = f"{name}.inner"
        while spare in used:
            spare += ".inner"
        renamed[name] = spare
        used.add(spare)
    _rename(model.graph, renamed)


def name_initialisers(model: onnx.ModelProto, module: nn.Module) -> None:
    """Name every initialiser after the entry of the state dict with its shape and values.

    Exporters merge initialisers of equal values, and name tensors that they have computed, such as
    a weight with its batch norm folded in, like the weight. Here each use of a merged initialiser
    gets its own name again; one that has other values than the entry of its name is renamed to
    ``NAME.exported``.
    """
    _split_merged(model.graph)
    state = state_arrays(module)
    by_content: dict[Content, list[str]] = {}
    for name, array in state.items():
        by_content.setdefault(_content(array), []).append(name)
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    renamed: dict[str, str] = {}
    named = {n for n, a in arrays.items() if n in state and _content(state[n]) == _content(a)}
    for name, array in arrays.items():
        if name in named:
            continue
        entries = [each for each in by_content.get(_content(array), ()) if each not in named]
        if len(entries) == 1:
            renamed[name] = entries[0]
            named.add(entries[0])
        elif name in state:
            renamed[name] = f"{name}.exported"
    _rename(model.graph, renamed)


def _content(array: NDArray[Any]) -> Content:
    return array.shape, str(array.dtype), hash(np.ascontiguousarray(array).tobytes())


def _split_merged(graph: onnx.GraphProto) -> None:
    """Replace each Identity of an initialiser by an initialiser of its own."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    results = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        if node.op_type != "Identity" or node.input[0] not in held or node.output[0] in results:
            kept.append(node)
            continue
        copied = graph.initializer.add()
        copied.CopyFrom(held[node.input[0]])
        copied.name = node.output[0]
        held[copied.name] = copied
    if len(kept) < len(graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)
    read = {name for node in _nodes(graph) for name in node.input} | results
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in _graphs(node):
            yield from _nodes(inner)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for held in (graph.input, graph.output, graph.initializer, graph.value_info):
        for each in held:
            each.name = names.get(each.name, each.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
        for inner in _graphs(node):
            _rename(inner, names)
