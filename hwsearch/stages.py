"""Names of choices, parsed into stage, block and attribute.

``stage2.block1.kernel`` is the kernel of the first block of stage 2, ``stage2.depth`` the depth of
the stage, and ``resolution`` belongs to no stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceName:
    """The parts of a choice's name; ``stage`` and ``block`` may be empty."""

    stage: str
    block: str
    attribute: str


def parse_name(name: str) -> ChoiceName:
    """Return the parts of the name of a choice."""
    *parts, attribute = name.split(".")
    return ChoiceName(
        stage=parts[0] if parts else "", block=".".join(parts[1:]), attribute=attribute
    )


def slots(names: Sequence[str]) -> dict[tuple[str, str], list[int]]:
    """Return the positions of the choices by (stage, block), in their order."""
    found: dict[tuple[str, str], list[int]] = {}
    for position, name in enumerate(names):
        parts = parse_name(name)
        found.setdefault((parts.stage, parts.block), []).append(position)
    return found


def stage_lines(choices: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (stage, text) of active choices, such as ``depth 2 · kernel 3 5`` by block."""
    stages: dict[str, dict[str, list[str]]] = {}
    for name, option in choices.items():
        parts = parse_name(name)
        stage = stages.setdefault(parts.stage, {})
        stage.setdefault(parts.attribute, []).append(str(option))
    return [
        (stage, " · ".join(f"{what} {' '.join(options)}" for what, options in attributes.items()))
        for stage, attributes in stages.items()
    ]


def one_line(choices: Mapping[str, Any]) -> str:
    """Format an architecture in one line."""
    lines = stage_lines(choices)
    return "; ".join(f"{stage}: {text}" if stage else text for stage, text in lines)
