"""The graph of a trained model, and what in it can be removed: groups and branches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

Role = Literal["out", "in", "through"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a weight comes from.

    Attributes:
        name: Initialiser, or parameter of a module, in the model that was given; empty for a bias
            that only the norm gave.
        permutation: Axes of that tensor in the order of the weight's; empty if they are the same.
        norm: Names of scale, shift, mean and variance of the batch norm folded into the weight.
    """

    name: str
    permutation: tuple[int, ...] = ()
    norm: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Graph:
    """A trained model in canonical form.

    Constants are folded, batch norms after a convolution or linear layer are folded into it, and
    every weight is read by one input of one node.

    Attributes:
        proto: The model without initialisers; nodes have unique names and are in topological
            order; the first axis of inputs and outputs is the batch, and symbolic.
        weights: Initialiser -> array.
        origins: Initialiser -> where it comes from, if it is in the given model.
        shapes: Value -> its shape for one sample, the batch (1) included.
        digest: SHA-256 of the given model, 64 hex digits.
        notes: What users should know, such as an axis that is fixed at one size.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, NDArray[Any]]
    origins: Mapping[str, Origin]
    shapes: Mapping[str, tuple[int, ...]]
    digest: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Slot:
    """Where the units of a group lie along one axis of one weight.

    Attributes:
        weight: The initialiser.
        axis: The axis.
        positions: (units, width): positions along the axis that each unit takes.
        node: The node that reads the weight.
        role: ``out``: the node produces the units; ``in``: it reads them and sums over them;
            ``through``: they pass through it one by one (norms, depthwise convolutions).
    """

    weight: str
    axis: int
    positions: NDArray[np.int64]
    node: str
    role: Role


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Patch:
    """An integer of the graph that shrinks with a group, such as one of a shape.

    Integers are changed before weights are sliced: each constant index of a Gather has a patch,
    and all of them a slot.

    Attributes:
        target: An integer initialiser, or a node for one of its attributes.
        attribute: The attribute's name; empty for an initialiser.
        position: Position in the flattened integers.
        amounts: (units,): what each removed unit takes off.
    """

    target: str
    attribute: str = ""
    position: int = 0
    amounts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Group:
    """Units (channels, neurons or heads), each of which is kept or removed as a whole.

    Attributes:
        name: As in ``layer3.2.conv1.width``; unique among groups and branches.
        kind: ``inner``: between two layers; ``residual``: of a residual stream; ``heads``:
            of an attention; ``ffn``: hidden neurons of a feed-forward layer.
        size: Number of units.
        slots: All that a unit takes in weights.
        patches: All integers that shrink with it.
        parts: (units,): the part of each unit. Every part keeps the same share of its units, as
            the halves of a channel shuffle and the channels within a convolution's groups must.
        exact: Whether removing units equals zeros in the weights that read them.
    """

    name: str
    kind: str
    size: int
    slots: tuple[Slot, ...]
    patches: tuple[Patch, ...] = ()
    parts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    exact: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Branch:
    """What a residual addition adds to its input, and what can be left out.

    Attributes:
        name: As in ``layer4.1.keep``.
        node: The addition.
        side: The input of it that is left out, 0 or 1; the other one takes the sum's place.
        nodes: The nodes that nothing else needs.
    """

    name: str
    node: str
    side: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RepeatedLayer:
    """A layer of several that are equal, with its norms, which can be left out as a whole.

    Without it, what reads ``output`` reads ``input``. It may contain branches: those of a
    transformer's layer are attention and feed-forward layer.

    Attributes:
        name: As in ``encoder.layer.4.keep``; unique among groups, branches and layers.
        input: The value that it reads.
        output: The value that it makes, of the same shape.
        nodes: All of its nodes, which nothing else needs.
    """

    name: str
    input: str
    output: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Work:
    """MACs of one node for one sample, and what they shrink with.

    They are ``macs`` times, for each of ``factors``, the share that is kept of an axis: an axis of
    ``size`` loses ``per_unit[group]`` positions with each removed unit of a group.

    Attributes:
        factors: (size, group name -> positions of a unit) of each axis that groups lie on.
    """

    node: str
    macs: int
    factors: tuple[tuple[int, Mapping[str, int]], ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rest:
    """MACs that no group or branch reaches, and why.

    Attributes:
        what: The node, weight or value that stopped the analysis.
        reason: For users.
        macs: Of the layers affected, for one sample.
    """

    what: str
    reason: str
    macs: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Structure:
    """A graph with all that can be removed from it.

    Attributes:
        work: The MACs of each node that has any.
        rest: What was left alone.
        layers: In the order of the graph; the kinds of layers one after the other.
    """

    graph: Graph
    groups: tuple[Group, ...]
    branches: tuple[Branch, ...]
    work: tuple[Work, ...]
    rest: tuple[Rest, ...] = ()
    layers: tuple[RepeatedLayer, ...] = ()
