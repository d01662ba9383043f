"""Names of groups and branches, from those of weights and nodes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

import onnx

from hwsearch.elastic.graph import Branch, Graph, Group, RepeatedLayer

# Exporters name tensors that have no name: onnx::Conv_497, val_12, 123, _v_45.
_NO_NAME = re.compile(
    r"\d+|onnx::.*|/.*|"
    r"(val|_v|v|t|x|w|p|c|arg|const|constant|tensor|node|input|weight|bias|param|initializer)"
    r"_?\d+(_\w+)?",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    r"[._](weight|kernel|in_proj_weight|weight_v|weight_g|weight_orig|w|W|depthwise_kernel"
    r"|bias|gamma|beta|parametrizations\..*)$"
)
_ATTENTION = frozenset(
    (
        "attn", "attention", "self", "self_attn", "self_attention", "mha", "sa", "qkv",
        "query", "key", "value", "q", "k", "v", "q_proj", "k_proj", "v_proj", "in_proj",
        "SelfAttention", "core", "mixer", "token_mixer",
    )
)  # fmt: skip
_FEED_FORWARD = frozenset(
    (
        "mlp", "ffn", "feed_forward", "feedforward", "ff", "intermediate", "output", "dense",
        "fc1", "fc2", "linear1", "linear2", "DenseReluDense", "net", "block",
    )
)  # fmt: skip
_BLOCK = frozenset(
    ("block", "conv", "branch", "residual", "residual_function", "body", "net", "f", "layers")
)
_SUFFIXES = {"heads": "heads", "ffn": "ffn"}


class Scopes:
    """The module that each node and weight of a graph belongs to, as dotted paths."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._scopes: dict[str, str] = {}
        for node in graph.proto.graph.node:
            found = [
                path
                for name in node.input
                if name in graph.weights and (path := self._of_weight(name))
            ]
            # The weight's name says more than the scope, which exporters may merge.
            path = found[0] if found else _of_metadata(node) or _of_node(node.name)
            if path:
                self._scopes[node.name] = path

    def _of_weight(self, name: str) -> str:
        origin = self._graph.origins.get(name)
        given = origin.name if origin is not None else name
        return module_of(given)

    def of(self, node: str) -> str:
        """Return the module of a node, or else its name."""
        return self._scopes.get(node) or printable(node)

    def modules(self, nodes: Iterable[str]) -> list[str]:
        """Return the modules of those nodes that have one."""
        return [self._scopes[node] for node in nodes if node in self._scopes]


def module_of(weight: str) -> str:
    """Return the module of a parameter, or an empty string for a name that says nothing."""
    if _NO_NAME.fullmatch(weight):
        return ""
    stripped = _PARAMETER.sub("", weight)
    return printable(stripped.replace("/", ".").strip("."))


def _of_metadata(node: onnx.NodeProto) -> str:
    """Return the module in what PyTorch's exporter states: ``['', 'layer1', 'conv2d']``."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            found = re.findall(r"'([^']*)'", entry.value)
            return printable(found[-2]) if len(found) > 1 else ""
    return ""


def _of_node(name: str) -> str:
    """Return the module in the name of a node: ``/layer1/layer1.0/conv1/Conv``."""
    parts = name.strip("/").split("/")[:-1]
    # A module in a list or sequence has the name of that as a prefix.
    own = [
        part
        for part, after in zip(parts, [*parts, ""][1:], strict=True)
        if not after.startswith(f"{part}.")
    ]
    return printable(".".join(own))


def printable(name: str) -> str:
    """Return a name without characters that separate settings or cannot be printed."""
    cleaned = re.sub(r"[^\w.\-]+", "_", name)
    return re.sub(r"\.{2,}", ".", cleaned).strip("._")


def common_module(paths: Iterable[str]) -> str:
    """Return the longest module that all of some paths lie in."""
    columns = zip(*(path.split(".") for path in paths if path), strict=False)
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))


def name_groups(groups: Sequence[Group], scopes: Scopes) -> list[Group]:
    """Return groups with unique names."""
    names = unique([_candidates(group, scopes) for group in groups])
    return [replace(group, name=name) for group, name in zip(groups, names, strict=True)]


def name_branches(
    branches: Sequence[Branch], kinds: Sequence[str], scopes: Scopes, taken: Iterable[str]
) -> list[Branch]:
    """Return branches with unique names, none of which is taken.

    ``kinds`` has ``attention``, ``ffn`` or ``block`` for each.
    """
    wanted = []
    for branch, kind in zip(branches, kinds, strict=True):
        base = common_module(scopes.modules(branch.nodes)) or scopes.of(branch.node)
        if kind == "attention":
            shorter = stripped(base, _ATTENTION)
            found = [f"{shorter}.attention.keep", f"{base}.attention.keep"]
        elif kind == "ffn":
            found = [f"{stripped(base, _FEED_FORWARD)}.ffn.keep", f"{base}.ffn.keep"]
        else:
            found = [f"{stripped(base, _BLOCK)}.keep", f"{base}.keep"]
        wanted.append([each.strip(".") for each in found])
    names = unique(wanted, taken)
    return [replace(branch, name=name) for branch, name in zip(branches, names, strict=True)]


def name_layers(
    layers: Sequence[RepeatedLayer], scopes: Scopes, taken: Iterable[str]
) -> list[RepeatedLayer]:
    """Return layers with unique names, none of which is taken."""
    bases = [common_module(scopes.modules(layer.nodes)) or "layer" for layer in layers]
    names = unique([[f"{base}.keep", f"{base}.layer.keep"] for base in bases], taken)
    return [replace(layer, name=name) for layer, name in zip(layers, names, strict=True)]


def _candidates(group: Group, scopes: Scopes) -> list[str]:
    """Return names for a group, the shortest first."""
    makers = [scopes.of(node) for node in _nodes(group, "out")]
    if group.kind == "residual":
        return _of_residual(makers)
    if group.kind in _SUFFIXES:
        inside = makers
        known = _ATTENTION
        if group.kind == "ffn":
            inside = makers + scopes.modules(_nodes(group, "in"))
            known = _FEED_FORWARD
        base = common_module(inside) or (makers[0] if makers else "")
        found = [stripped(base, known), base, *makers[:1]]
        suffix = _SUFFIXES[group.kind]
        return [f"{each}.{suffix}".strip(".") for each in dict.fromkeys(found)]
    base = makers[0] if makers else ""
    return [f"{base}.width".strip(".")]


def _nodes(group: Group, role: str) -> list[str]:
    return list(dict.fromkeys(slot.node for slot in group.slots if slot.role == role))


def stripped(path: str, known: Iterable[str]) -> str:
    """Return a path without known names at its end; at least one part stays."""
    parts = path.split(".")
    names = set(known)
    while len(parts) > 1 and parts[-1] in names:
        parts.pop()
    return ".".join(parts)


def _of_residual(makers: Sequence[str]) -> list[str]:
    """Name a stream by the module that most of its producers lie in, and which of its parts."""
    if not makers:
        return ["width"]
    base = common_module(makers)
    inside = list(makers)
    if not base:
        # A stem or a shortcut often lies elsewhere.
        first = Counter(path.split(".")[0] for path in makers).most_common(1)[0][0]
        inside = [path for path in makers if path.split(".")[0] == first]
        base = common_module(inside)
    depth = base.count(".") + 1
    parts = [path.split(".")[depth] for path in inside if path.count(".") >= depth]
    ends = list(dict.fromkeys(parts))
    found = [f"{base}.width"]
    if len(ends) > 1:
        found.append(f"{base}.{ends[0]}-{ends[-1]}.width")
    return [*found, f"{makers[0]}.width"]


def unique(wanted: Sequence[Sequence[str]], taken: Iterable[str] = ()) -> list[str]:
    """Return one name for each of several lists of candidates, all different.

    Of those that want the same name all take their next candidate; after the last one they are
    numbered in order.
    """
    names = [list(dict.fromkeys(candidates)) for candidates in wanted]
    level = [0] * len(names)
    used = set(taken)
    while True:
        current = [each[at] for each, at in zip(names, level, strict=True)]
        counts = Counter(current)
        moved = False
        for number, name in enumerate(current):
            clash = counts[name] > 1 or name in used
            if clash and level[number] + 1 < len(names[number]):
                level[number] += 1
                moved = True
        if not moved:
            break
    result: list[str] = []
    reserved = used | set(current)
    for name in current:
        chosen, suffix = name, 1
        while chosen in used or (suffix > 1 and chosen in reserved):
            suffix += 1
            chosen = f"{name}.{suffix}"
        used.add(chosen)
        result.append(chosen)
    return result
