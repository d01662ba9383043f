"""Where each choice stands in a network: the stage, the block in it, and what is chosen there.

Read from the names, as families give them: ``stage2.block1.kernel`` is the kernel of the first
block of stage 2, ``stage2.depth`` the depth of the stage, ``resolution`` stands by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one choice stands.

    Attributes:
        stage: The first part of the name; empty for a choice that stands by itself.
        block: The parts between; empty for a choice of the whole stage.
        attribute: The last part.
    """

    stage: str
    block: str
    attribute: str


def place_of(name: str) -> Place:
    """Read the name of a choice."""
    *parts, attribute = name.split(".")
    return Place(stage=parts[0] if parts else "", block=".".join(parts[1:]), attribute=attribute)


def slots(names: Sequence[str]) -> dict[tuple[str, str], list[int]]:
    """(stage, block) -> positions of the choices there, in their order."""
    found: dict[tuple[str, str], list[int]] = {}
    for position, name in enumerate(names):
        place = place_of(name)
        found.setdefault((place.stage, place.block), []).append(position)
    return found


def stage_lines(choices: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say an architecture in a line for each stage, such as ``depth 2 · kernel 3 5``.

    Args:
        choices: Name -> option, of the active choices.

    Returns:
        (stage, text); what is chosen in several blocks is listed in their order.
    """
    stages: dict[str, dict[str, list[str]]] = {}
    for name, option in choices.items():
        place = place_of(name)
        stage = stages.setdefault(place.stage, {})
        stage.setdefault(place.attribute, []).append(str(option))
    return [
        (stage, " · ".join(f"{what} {' '.join(options)}" for what, options in attributes.items()))
        for stage, attributes in stages.items()
    ]


def one_line(choices: Mapping[str, Any]) -> str:
    """Say an architecture in one line."""
    lines = stage_lines(choices)
    return "; ".join(f"{stage}: {text}" if stage else text for stage, text in lines)
