"""Names that two values of a graph have, as exporters write them by mistake.

PyTorch's newer exporter gives an output the name that the user wants, whether or not a value
within the graph has it already. ONNX Runtime refuses such files.
"""

import onnx

from hwsearch.errors import InputError


def without_duplicates(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose values have names of their own; the same one if they have.

    The last value of a name keeps it; what reads the name before it is defined again means the
    one before.

    Raises:
        InputError: What a node reads is ambiguous.
    """
    defined: dict[str, list[int]] = {}
    for position, node in enumerate(model.graph.node):
        for name in filter(None, node.output):
            defined.setdefault(name, []).append(position)
    fixed = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    if clash := sorted(fixed.intersection(defined)):
        raise InputError(
            f"the model's input or weight {clash[0]!r} has the name of a value that is computed; "
            "export it again with other names"
        )
    repeated = {name: places for name, places in defined.items() if len(places) > 1}
    if not repeated:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for name, places in repeated.items():
        _rename(result.graph, name, places)
    return result


def _rename(graph: onnx.GraphProto, name: str, places: list[int]) -> None:
    outputs = {value.name for value in graph.output}
    readers = [position for position, node in enumerate(graph.node) if name in node.input]
    if len(places) > 2 or name not in outputs or any(reader > places[1] for reader in readers):
        raise InputError(
            f"the model defines value {name!r} {len(places)} times, and what reads it is "
            "ambiguous; export it again with other names of its outputs (output_names)"
        )
    for position in range(places[0], places[1] + 1):
        node = graph.node[position]
        if position < places[1]:
            node.output[:] = [f"{name}.inner" if each == name else each for each in node.output]
        if position > places[0]:
            node.input[:] = [f"{name}.inner" if each == name else each for each in node.input]
