"""Rule for recurrent layers: LSTM, GRU and RNN, of one direction or two."""

import numpy as np
import onnx

from hwsearch.elastic.analysis.atoms import Layer
from hwsearch.elastic.analysis.flow import (
    Flow,
    NotUnderstoodError,
    Rules,
    attributes,
    known_shape,
)
from hwsearch.elastic.analysis.integers import Integer, Target

_WEIGHTS, _BIAS, _STATES, _PEEPHOLES = (1, 2), 3, (5, 6), 7  # positions of inputs


def recurrent(flow: Flow, node: onnx.NodeProto) -> None:
    """Join features that are read with the weight's, and make new atoms for hidden units.

    A hidden unit has a row of each gate in both matrices and a column of the recurrent one, in
    each direction: directions have one number of hidden units.
    """
    given = {place: name for place, name in enumerate(node.input) if name}
    own = [given[place] for place in (*_WEIGHTS, _BIAS, _PEEPHOLES) if place in given]
    if attributes(node).get("layout", 0):
        raise NotUnderstoodError("the batch comes first")
    if not all(flow.is_constant(name) and not flow.is_shared(name) for name in own):
        raise NotUnderstoodError("its weights are computed or shared")
    weight, again = (given[place] for place in _WEIGHTS)
    hidden = known_shape(flow, again)[2]
    for layer in flow.layers(given[0]):
        read = flow.collapse(layer, {0, 1}, node, "it runs over them")
        if read is not None:
            flow.slot(weight, read, [0, 1, 2], node, "in")
    if hidden == 1:
        return
    units = flow.atoms.new(hidden)
    gates = known_shape(flow, weight)[1] // hidden
    for name in (weight, again):
        flow.slot(name, np.tile(units, gates).reshape(1, -1, 1), [0, 1, 2], node, "out")
    flow.slot(again, units.reshape(1, 1, -1), [0, 1, 2], node, "in")
    for place in (_BIAS, _PEEPHOLES):
        if place in given:
            times = known_shape(flow, given[place])[1] // hidden
            flow.slot(given[place], np.tile(units, times).reshape(1, -1), [0, 1], node, "out")
    for place in _STATES:
        if place in given:
            _state(flow, node, given[place], units.reshape(1, 1, -1))
    flow.demand(Integer(hidden, Target(node.name, "hidden_size")), (units,), 0, node)
    for name, rank in zip(node.output, (4, 3, 3), strict=False):
        flow.give(name, (units.reshape((1,) * (rank - 1) + (-1,)),), node.name)


def _state(flow: Flow, node: onnx.NodeProto, name: str, units: Layer) -> None:
    """Join hidden units with those of a first state."""
    if flow.is_constant(name):
        flow.slot(name, units, [0, 1, 2], node, "through")
        return
    layers = flow.collapsed(flow.layers(name), {0, 1}, node, "it runs over them")
    if not layers:
        flow.pin([units], node, "the first state cannot shrink")
    for layer in layers:
        flow.atoms.join(layer, units, node.name)


RULES: Rules = {"GRU": recurrent, "LSTM": recurrent, "RNN": recurrent}
