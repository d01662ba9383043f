"""Conditions that constants or static axes decide: the branch that is taken replaces them."""

import onnx_ir as ir
from onnx_ir.passes import common


def inline_branch(model: ir.Model, node: ir.Node, *, condition: bool) -> None:
    """Replace an If by the nodes of the branch that is taken."""
    graph = model.graph
    branch = node.attributes["then_branch" if condition else "else_branch"].as_graph()
    results, nodes = list(branch.outputs), list(branch)
    branch.outputs.clear()
    branch.remove(nodes)
    for value in list(branch.initializers.values()):
        branch.initializers.pop(str(value.name))
        while value.name in graph.initializers:
            value.name = f"{value.name}.branch"
        graph.register_initializer(value)
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        is_output, name = output.is_graph_output(), output.name
        if is_output and not _can_be_renamed(result, nodes):
            identity = ir.node("Identity", [result])
            graph.insert_before(node, identity)
            result = identity.outputs[0]
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        if is_output:
            output.name = f"{name}.if"
            result.name, result.shape, result.type = name, output.shape, output.type
    graph.remove(node, safe=True)
    common.NameFixPass()(model)  # names of a branch may occur elsewhere


def _can_be_renamed(value: ir.Value, nodes: list[ir.Node]) -> bool:
    return value.producer() in nodes and not value.is_graph_output()
