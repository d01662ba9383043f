"""Stages and blocks of an elastic model, from the names of its choices.

Names are paths of modules or of initialisers, of any depth: ``layer3.2.conv1.width``,
``encoder.layer.4.heads``, ``features.4-6.width``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from hwsearch.architectures import KEEP
from hwsearch.choices import Choice

_RANGE = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a choice belongs: its stage, the block in it, and what it decides there."""

    stage: str
    block: str
    attribute: str


@dataclass(slots=True)
class _Node:
    """A part of the paths; ``own`` are the attributes of the choices that are about it."""

    path: str
    own: set[str] = field(default_factory=set)
    children: "dict[str, _Node]" = field(default_factory=dict)

    def inner(self) -> "_Node":
        """Return the first node below that has choices of its own or several children."""
        node = self
        while not node.own and len(node.children) == 1:
            (node,) = node.children.values()
        return node


def places(choices: Sequence[Choice]) -> dict[str, Place]:
    """Return the name of each choice -> its place.

    A part of the model that can be left out is a block. A part with a width of its own and
    further parts is a stage, and so is one of several parts that holds several blocks. Where
    parts are numbered and a width is that of a range of them, as in ``features.4-6.width``, the
    range is a stage.
    """
    root, found = _Node(""), {}
    for choice in choices:
        node = root
        for part in choice.name.split(".")[:-1]:
            path = f"{node.path}.{part}".lstrip(".")
            node = node.children.setdefault(part, _Node(path))
        node.own.add(choice.name.rpartition(".")[2])
    whole = _Node("", children=root.children).inner()
    stages = _stages(whole)
    for choice in choices:
        path, _, attribute = choice.name.rpartition(".")
        stage, block = next(
            (each for each in stages if _within(path, each[1] or each[0])), ("", "")
        )
        owner = block or stage
        inside = path.removeprefix(owner).strip(".")
        found[choice.name] = Place(
            stage, block.removeprefix(stage).strip("."), f"{inside}.{attribute}".lstrip(".")
        )
    shared = common_path([place.stage for place in found.values() if place.stage])
    return {
        name: replace(place, stage=place.stage.removeprefix(shared))
        for name, place in found.items()
    }


def common_path(names: Sequence[str]) -> str:
    """Return the path that several names begin with, with its last dot; "" if there is none."""
    paths = [name.split(".")[:-1] for name in set(names)]
    if len(paths) < 2:
        return ""
    same = list(takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))
    return "".join(f"{parts[0]}." for parts in same)


def _stages(whole: _Node) -> list[tuple[str, str]]:
    """Return (path of the stage, path of the block), the most particular ones first."""
    parts = whole.children
    ranges = {part: node.path for part, node in parts.items() if _RANGE.fullmatch(part)}
    numbered = {part for part in parts if part.isdecimal()}
    blocks = any(KEEP in node.own for node in parts.values()) or bool(ranges)
    found = []
    for part, node in parts.items():
        inner = node.inner()
        if part in ranges:
            found.append((node.path, ""))
        elif part in numbered and blocks:
            found.append((_range_of(int(part), ranges) or whole.path, node.path))
        elif KEEP in inner.own or not inner.children:
            alone = not blocks and not inner.path[len(whole.path) :].strip(".").isdecimal()
            found.append((inner.path, "") if alone else (whole.path, node.path))
        else:
            found += [(inner.path, child.path) for child in inner.children.values()]
            found.append((inner.path, ""))
    if whole.own:
        found.append((whole.path, ""))
    return sorted(found, key=lambda each: -len(each[1] or each[0]))


def _range_of(number: int, ranges: Mapping[str, str]) -> str:
    for part, path in ranges.items():
        first, last = map(int, part.split("-"))
        if first <= number <= last:
            return path
    return ""


def _within(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")


def shares(options: Sequence[object]) -> list[float | None] | None:
    """Return each number among options as a share of the largest; None if there is none."""
    numbers = [o for o in options if isinstance(o, int | float) and not isinstance(o, bool)]
    if not numbers or max(numbers) <= 0:
        return None
    return [round(o / max(numbers), 4) if o in numbers else None for o in options]
