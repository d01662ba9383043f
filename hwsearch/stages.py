"""Names of choices, parsed into stage, block and attribute.

``stage2.block1.kernel`` is the kernel of the first block of stage 2, ``stage2.depth`` the depth of
the stage, and ``resolution`` belongs to no stage.
"""

from collections.abc import Mapping
from typing import Any


def parse_name(name: str) -> tuple[str, str, str]:
    """Return stage, block (both may be empty) and attribute of the name of a choice."""
    path, _, attribute = name.rpartition(".")
    stage, _, block = path.partition(".")
    return stage, block, attribute


def stage_lines(choices: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (stage, text) of active choices, such as ``depth 2 · kernel 3 5`` by block."""
    stages: dict[str, dict[str, list[str]]] = {}
    for name, option in choices.items():
        stage, _, attribute = parse_name(name)
        stages.setdefault(stage, {}).setdefault(attribute, []).append(str(option))
    return [
        (stage, " · ".join(f"{what} {' '.join(options)}" for what, options in attributes.items()))
        for stage, attributes in stages.items()
    ]


def one_line(choices: Mapping[str, Any]) -> str:
    """Format an architecture in one line."""
    lines = stage_lines(choices)
    return "; ".join(f"{stage}: {text}" if stage else text for stage, text in lines)
