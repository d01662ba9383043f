"""What the pictures share: figures without a display, plain axes, labels with units."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsearch.files import write_atomic
from hwsearch.objectives import Objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, layout: Any = "constrained") -> "Figure":
    """Return an empty figure of so many inches, at 150 dots an inch."""
    # Imported here: drawing loads slowly, and a search must not depend on a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, all of it or nothing."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_atomic(path, drawn.getvalue())


def make_plain(axes: Any) -> None:
    """Give axes a faint grid and leave out their frame's top and right."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def axis_label(objective: Objective, predicted: bool) -> str:
    """Name an objective with its unit, and say where it is predicted."""
    unit = f" ({objective.unit})" if objective.unit else ""
    return f"{objective.name}{unit}{', predicted' if predicted else ''}"
