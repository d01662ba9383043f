"""Chains of operators drawn at random: slices equal zeros in all of them."""

import numpy as np
import pytest
from onnx import helper
from test_operators import BETWEEN, CONV, READ, SHAPES, model

from hwsearch.elastic.analysis.structure import analyse
from tests.elastic.removal import difference, kept_units, plain_graph

# These change the number of places, which others state as a constant.
SAME_SHAPE = sorted(set(BETWEEN) - {"resize to sizes", "pooling"})


def chained(cases, skip):
    """Return a model of several cases in turn; with ``skip`` what they make is added to a."""
    whole = model(f"{CONV} z = Identity(a) {READ}", **SHAPES)
    first, middle, last = whole.graph.node
    nodes, value = [first], "a"
    for number, case in enumerate(cases):
        body, weights, _ = BETWEEN[case]
        part = model(body.replace("z = ", "y = "), "float[N,8,6,6] a", **weights)
        renamed = {"a": value}
        for node in part.graph.node:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name:
                        names[position] = renamed.setdefault(name, f"{name}_{number}")
            nodes.append(node)
        for tensor in part.graph.initializer:
            tensor.name = renamed[tensor.name]
            whole.graph.initializer.append(tensor)
        value = renamed["y"]
    if skip:
        nodes.append(helper.make_node("Add", [value, "a"], ["sum"]))
        value = "sum"
    middle.input[0] = value
    del whole.graph.node[:]
    whole.graph.node.extend([*nodes, middle, last])
    return whole


@pytest.mark.parametrize("seed", range(24))
def test_slices_equal_zeros_in_chains(seed):
    rng = np.random.default_rng(seed)
    cases = rng.choice(SAME_SHAPE, 3, replace=False).tolist()
    proto = chained(cases, skip=bool(seed % 2))
    found = analyse(plain_graph(proto, fold=seed % 3 == 0))
    assert difference(found, kept_units(found.groups, 0.5, seed)) < 1e-5, cases
