"""Visit of all nodes in order: shapes are evaluated, atoms propagated, the rest pinned."""

from collections.abc import Iterator

import onnx

from hwsearch.elastic.analysis import (
    contractions,
    convolutions,
    elementwise,
    indexing,
    layout,
    recurrent,
    reductions,
)
from hwsearch.elastic.analysis.flow import Flow, NotUnderstoodError, Rule
from hwsearch.elastic.analysis.shape_rules import evaluate
from hwsearch.elastic.graph import Graph

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **layout.RULES,
    **indexing.RULES,
    **reductions.RULES,
    **convolutions.RULES,
    **contractions.RULES,
    **recurrent.RULES,
}
# Operators that have weights, and so atoms of their own, or MACs.
_MAKERS = {*contractions.RULES, *convolutions.RULES, *recurrent.RULES, "Expand", "Gather"}
MALFORMED = "is not used as it is defined in opset 11 to 21"
# Inputs whose integers a rule follows; elsewhere they must not depend on what is removed.
_FOLLOWED = {
    "Expand": (1,),
    "Gather": (1,),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2),
    "Split": (1,),
}


def propagate(graph: Graph) -> Flow:
    """Propagate atoms from the weights to the outputs, where they are pinned."""
    flow = Flow(graph)
    for node in graph.proto.graph.node:
        visit(flow, node)
    for value in graph.proto.graph.output:
        for layer in flow.layers(value.name):
            flow.atoms.pin(layer, value.name, "they are an output of the model")
        _fix_integers(flow, value.name, onnx.NodeProto(name=value.name))
    return flow


def visit(flow: Flow, node: onnx.NodeProto) -> None:
    """Propagate atoms through one node; pin what its rule does not understand."""
    if evaluate(flow, node):
        return
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    read = (*node.input, *_captured(node))
    if node.op_type not in _MAKERS and not any(flow.layers(name) for name in read):
        for name in read:  # nothing that it reads can be removed, and so its shapes stay
            _fix_integers(flow, name, node)
        return
    try:
        if rule is None:
            _pin_all(flow, node, f"{node.op_type} is not understood")
        else:
            rule(flow, node)
    except NotUnderstoodError as error:
        _pin_all(flow, node, f"{node.op_type}: {error}")
    except (ValueError, LookupError):
        # Inputs that the operator's definition does not allow, or of a later opset.
        _pin_all(flow, node, f"{node.op_type} {MALFORMED}")
    for position, name in enumerate(node.input):
        if position not in _FOLLOWED.get(node.op_type, ()):
            _fix_integers(flow, name, node)


def _pin_all(flow: Flow, node: onnx.NodeProto, reason: str) -> None:
    """Pin what a node reads, and what its rule has made of it before it gave up."""
    for name in (*node.input, *_captured(node), *node.output):
        flow.pin(flow.layers(name), node, reason)
        _fix_integers(flow, name, node)
    for name in node.output:
        flow.give(name, (), node.name)


def _fix_integers(flow: Flow, name: str, node: onnx.NodeProto) -> None:
    """Demand that integers do not depend on what is removed."""
    if name in flow.integers and not flow.is_constant(name):
        for integer in flow.integers[name].reshape(-1):
            if integer.operands or integer.layers or integer.target is not None:
                flow.demand(integer, (), 0, node)


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that the subgraphs of a node read."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from _captured(inner)
            yield from (value.name for value in graph.output)
