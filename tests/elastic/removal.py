"""Removal of units from graphs, as slices and as zeros, and a graph from a plain ONNX model."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from hwsearch.elastic.graph import Graph, Origin

SAMPLES = 2


def session(proto):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def with_weights(graph, weights, nodes=None):
    """Return a graph's model with these weights."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    del proto.graph.initializer[:], proto.graph.value_info[:]
    if nodes is not None:
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
    read = {name for node in proto.graph.node for name in node.input}
    for name, array in weights.items():
        if name in read:
            proto.graph.initializer.append(
                numpy_helper.from_array(np.array(array, order="C"), name)
            )
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return proto


def drawn_inputs(graph, samples=SAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for value in graph.proto.graph.input:
        shape = (samples, *graph.shapes[value.name][1:])
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype.kind in "iu":
            found[value.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            found[value.name] = rng.standard_normal(shape).astype(dtype)
    return found


def outputs(proto, inputs):
    return session(proto).run(None, inputs)


def kept_units(groups, share=0.5, seed=0):
    """Return for each group a random mask that keeps a share of its units, at least one."""
    rng = np.random.default_rng(seed)
    masks = {}
    for group in groups:
        mask = np.zeros(group.size, bool)
        mask[rng.permutation(group.size)[: max(1, int(group.size * share))]] = True
        masks[group.name] = mask
    return masks


def sliced(structure, kept):
    """Return the model without the units that are not kept."""
    graph = structure.graph
    weights = {name: np.array(array) for name, array in graph.weights.items()}
    nodes = {node.name: onnx.NodeProto.FromString(node.SerializeToString())
             for node in graph.proto.graph.node}  # fmt: skip
    keep = {}
    for group in structure.groups:
        removed = ~kept[group.name]
        for patch in group.patches:
            amount = int(patch.amounts[removed].sum())
            if patch.attribute:
                (found,) = (a for a in nodes[patch.target].attribute if a.name == patch.attribute)
                if found.ints:
                    found.ints[patch.position] -= amount
                else:
                    found.i -= amount
            else:
                weights[patch.target].reshape(-1)[patch.position] -= amount
        for slot in group.slots:
            size = graph.weights[slot.weight].shape[slot.axis]
            mask = keep.setdefault((slot.weight, slot.axis), np.ones(size, bool))
            mask[slot.positions[removed].reshape(-1)] = False
    for (name, axis), mask in keep.items():
        weights[name] = weights[name].compress(mask, axis)
    return with_weights(graph, weights, [nodes[node.name] for node in graph.proto.graph.node])


def zeroed(structure, kept):
    """Return the model with zeros in the weights that read units that are not kept."""
    graph = structure.graph
    weights = {name: np.array(array) for name, array in graph.weights.items()}
    for group in structure.groups:
        for slot in group.slots:
            if slot.role == "in":
                index = [slice(None)] * weights[slot.weight].ndim
                index[slot.axis] = slot.positions[~kept[group.name]].reshape(-1)
                weights[slot.weight][tuple(index)] = 0
    return with_weights(graph, weights)


def difference(structure, kept, inputs=None):
    """Return the largest relative difference between slices and zeros over all outputs."""
    inputs = inputs or drawn_inputs(structure.graph)
    ours = outputs(sliced(structure, kept), inputs)
    reference = outputs(zeroed(structure, kept), inputs)
    worst = 0.0
    for a, b in zip(ours, reference, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(b).all()
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)))
    return worst


def effect(structure, kept, inputs=None):
    """Return the largest relative change of an output by the removal."""
    inputs = inputs or drawn_inputs(structure.graph)
    ours = outputs(zeroed(structure, kept), inputs)
    reference = outputs(with_weights(structure.graph, structure.graph.weights), inputs)
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, reference, strict=True)
    )


def macs_after(structure, kept):
    """Return the MACs that `Work` states for a subnet."""
    removed = {name: int((~mask).sum()) for name, mask in kept.items()}
    total = 0
    for work in structure.work:
        macs = work.macs
        for size, per_unit in work.factors:
            left = size - sum(removed[name] * n for name, n in per_unit.items())
            macs = macs * left // size
        total += macs
    return total


def plain_graph(proto, sample_shapes=None, fold=True):
    """Return a graph with the weights of a model, a copy for each use, and shapes as it runs."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    weights = {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "Constant":
            (value,) = (a for a in node.attribute)
            weights[node.output[0]] = numpy_helper.to_array(value.t).copy()
        elif node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]].copy()
        else:
            nodes.append(node)
    origins = {name: Origin(name=name) for name in weights}
    uses = Counter(name for node in nodes for name in set(node.input) if name in weights)
    for number, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}_{number}"
        for position, name in enumerate(node.input):
            if uses[name] > 1:
                uses[name] -= 1
                node.input[position] = f"{name}__{uses[name]}"
                weights[node.input[position]] = weights[name].copy()
                origins[node.input[position]] = Origin(name=name)
    del proto.graph.initializer[:], proto.graph.value_info[:]
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    shapes = {}
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        given = (sample_shapes or {}).get(value.name)
        shapes[value.name] = given or (1, *(dim.dim_value or 8 for dim in dims[1:]))
        dims[0].dim_param = "batch"
    nodes = folded(proto, nodes, weights, shapes) if fold else nodes
    origins |= {name: Origin(name=name) for name in weights if name not in origins}
    graph = Graph(
        proto=with_nodes(proto, nodes),
        weights=weights,
        origins=origins,
        shapes=shapes,
        digest="0" * 64,
    )
    run = with_weights(graph, weights)
    known = {value.name for value in run.graph.output}
    types = onnx.shape_inference.infer_shapes(run).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in types}
    for node in nodes:
        for name in node.output:
            if name and name not in known and name in kinds:
                run.graph.output.append(helper.make_tensor_value_info(name, kinds[name], None))
    names = [value.name for value in run.graph.output]
    found = outputs(run, drawn_inputs(graph, samples=1))
    shapes |= {name: array.shape for name, array in zip(names, found, strict=True)}
    return graph


def folded(proto, nodes, weights, shapes):
    """Return the nodes without those that compute shapes which no batch changes."""
    fixed, computed = set(weights), []
    for node in nodes:
        if node.op_type == "Shape" or (node.input and set(node.input) <= fixed):
            fixed |= set(node.output)
            computed += node.output
    whole = with_nodes(onnx.ModelProto.FromString(proto.SerializeToString()), nodes)
    graph = Graph(proto=whole, weights=weights, origins={}, shapes=shapes, digest="")
    if not computed:
        return nodes
    run = with_weights(graph, weights)
    del run.graph.output[:]
    run.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    both = [outputs(run, drawn_inputs(graph, samples=n)) for n in (1, 3)]
    for name, one, three in zip(computed, *both, strict=True):
        if one.shape == three.shape and (one == three).all():
            weights[name] = one
    left, needed = [], {value.name for value in proto.graph.output}
    for node in reversed(nodes):
        if set(node.output) & needed and not set(node.output) <= set(weights):
            left.insert(0, node)
            needed |= set(node.input)
    uses = Counter(name for node in left for name in node.input if name in computed)
    for node in left:
        for position, name in enumerate(node.input):
            if name in weights and uses[name] > 1:
                uses[name] -= 1
                node.input[position] = f"{name}__{uses[name]}"
                weights[node.input[position]] = weights[name].copy()
    return left


def with_nodes(proto, nodes):
    listed = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(listed)
    return proto
