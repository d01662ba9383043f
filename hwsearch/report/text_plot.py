"""A plot of dots as text, for terminals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

_MARGIN = 0.04  # of the range, so that no dot sits on an axis
_LABEL = 9  # columns for the numbers of the upright axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Dots of one kind, (n,) each; later layers cover earlier ones. ``style`` is rich's."""

    name: str
    sign: str
    style: str
    x: Sequence[float]
    y: Sequence[float]


def text_plot(
    layers: Sequence[Layer],
    labels: tuple[str, str],
    size: tuple[int, int],
    upright: Sequence[float] = (),
) -> Text:
    """Draw layers of dots, from the back to the front; at least one dot in all.

    ``labels`` are those of the axes (across, up), ``size`` is columns and rows, labels included,
    ``upright`` the positions of vertical lines, such as a limit of the latency.
    """
    width, height = max(size[0] - _LABEL - 2, 10), max(size[1] - 3, 3)
    x = np.concatenate([np.asarray(layer.x, float) for layer in layers])
    y = np.concatenate([np.asarray(layer.y, float) for layer in layers])
    left, right = _range(np.append(x, upright))
    bottom, top = _range(y)
    signs = [[(" ", "")] * width for _ in range(height)]
    for bound in upright:
        column = _cell(bound, left, right, width)
        for row in signs:
            row[column] = ("┊", "yellow")
    for layer in layers:
        for across, up in zip(layer.x, layer.y, strict=True):
            line = height - 1 - _cell(up, bottom, top, height)
            signs[line][_cell(across, left, right, width)] = (layer.sign, layer.style)
    found = Text(f"{labels[1]}\n")
    for number, row in enumerate(signs):
        told = {0: top, height - 1: bottom}.get(number)
        found.append(f"{'' if told is None else f'{told:.4g}':>{_LABEL}} │", style="dim")
        for sign, style in row:
            found.append(sign, style=style)
        found.append("\n")
    ends = f"{left:.4g}", f"{right:.4g}"
    gap = max(1, width - sum(map(len, ends)) - len(labels[0]))
    middle = labels[0].center(gap + len(labels[0]))
    found.append(f"{'':>{_LABEL}} └{'─' * width}\n{'':>{_LABEL + 2}}", style="dim")
    found.append(f"{ends[0]}{middle[: max(0, width - sum(map(len, ends)))]}{ends[1]}")
    return found


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    gap = _MARGIN * (high - low) or abs(high) * _MARGIN or 1.0
    return low - gap, high + gap


def _cell(value: float, low: float, high: float, n: int) -> int:
    return int(np.clip((value - low) / (high - low) * n, 0, n - 1))
