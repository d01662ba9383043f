"""Groups that share one choice, so that a search space stays small: runs of equal layers."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from hwsearch.elastic.graph import Group

Options = tuple[int, ...]


def tied(
    groups: Sequence[Group], options: Mapping[str, Options], most: int
) -> list[tuple[Group, ...]]:
    """Return runs of groups that share a choice; at most ``most`` of them, if that is possible.

    Groups of one run have equal sizes, kinds and options, and names that differ in numbers of
    blocks only (``layer3.0.conv1.width``, ``layer3.1.conv1.width``); where runs of these are still
    too many, names do not matter. Runs are as short as possible, and none if ``groups`` are few.

    Args:
        groups: In the order of the graph.
        options: Group -> the options of its choice.
        most: The number of choices.
    """
    found: list[tuple[Group, ...]] = [(group,) for group in groups]
    if len(groups) <= most:
        return found
    for by_name in (True, False):
        sets: dict[object, list[Group]] = {}
        for group in groups:
            name = _without_numbers(group.name) if by_name else ""
            key = (name, group.kind, group.size, options[group.name])
            sets.setdefault(key, []).append(group)
        for length in range(2, max(map(len, sets.values())) + 1):
            found = [run for members in sets.values() for run in _runs(members, length)]
            if len(found) <= most:
                break
        if len(found) <= most:
            break
    order = {group.name: position for position, group in enumerate(groups)}
    return sorted(found, key=lambda run: order[run[0].name])


def run_name(names: Sequence[str]) -> str:
    """Return a name for a run: ``layer3.0-3.conv1.width`` for ``layer3.0.conv1.width`` to 3."""
    first, last = names[0].split("."), names[-1].split(".")
    same, end = 0, 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    while end < min(len(first), len(last)) - same and first[-1 - end] == last[-1 - end]:
        end += 1
    middle = ".".join(first[same : len(first) - end]), ".".join(last[same : len(last) - end])
    return ".".join([*first[:same], "-".join(middle), *first[len(first) - end :]])


def _runs(members: Sequence[Group], length: int) -> list[tuple[Group, ...]]:
    """Split groups into consecutive runs of almost equal lengths, none above ``length``."""
    count = math.ceil(len(members) / length)
    cuts = [round(len(members) * part / count) for part in range(count + 1)]
    return [tuple(members[begin:end]) for begin, end in pairwise(cuts)]


def _without_numbers(name: str) -> str:
    """Return a name without numbers of stages and blocks; the last layer's own name stays."""
    *blocks, layer, attribute = ["", *name.split(".")]
    blocks = [re.sub(r"\d+", "#", block) for block in blocks]
    return ".".join([*blocks, "#" if layer.isdigit() else layer, attribute])
