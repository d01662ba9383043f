"""The members' architectures as a PNG: a row for each, a bar for each block."""

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from hwsearch.report.canvas import new_figure, save_figure
from hwsearch.report.facts import Facts
from hwsearch.report.findings import by_cost
from hwsearch.report.search_picture import BLUE, GREEN, GREY
from hwsearch.stages import slots

_LOWEST, _PALEST = 0.3, 0.22  # of a first option: it is there
Bar = tuple[float, float, float, str, float]  # left, top, height, colour, shade
_GAP: Final = 0.7  # between stages, in bars


def draw_architectures(path: Path, facts: Facts) -> None:
    """Draw what the choices of each member are, by the cost that plots show across.

    A bar is a stage (green) or a block (blue). Its height is the position of its first choice
    among the options, its shade that of its second one; a dot stands where nothing is active.

    Args:
        path: The PNG to write.
        facts: Of a finished run.
    """
    keys, along = by_cost(facts), facts.across or facts.up
    assert facts.members is not None
    rows = facts.members.set_index("key")
    where = slots(facts.space.names)
    columns = _columns(list(where))
    figure = new_figure(1.9 + 0.26 * (columns[-1] + 1), 1.1 + 0.34 * len(keys))
    axes = figure.add_subplot()
    bars: list[Bar] = []
    dots: list[tuple[float, float]] = []
    for line, key in enumerate(keys):
        number = facts.place[key]
        for column, ((_, block), positions) in zip(columns, where.items(), strict=True):
            shares = [_share(facts, number, position) for position in positions]
            known = [share for share in shares if share is not None]
            if known:
                bars.append(_bar(column, line, known, BLUE if block else GREEN))
            else:
                dots.append((column, line + 0.32))
    _add_bars(axes, bars)
    if dots:
        axes.plot(*zip(*dots, strict=True), ".", color=GREY, markersize=3)
    axes.set_yticks(range(len(keys)), [f"{rows[along.name][key]:.4g}" for key in keys])
    firsts = {
        stage: column for column, (stage, _) in reversed(list(zip(columns, where, strict=True)))
    }
    axes.set_xticks([*firsts.values()], [stage or "all" for stage in firsts])
    axes.set_xlim(-0.8, columns[-1] + 0.8)
    axes.set_ylim(len(keys) - 0.4, -0.7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=8)
    axes.set_ylabel(f"{along.name} {along.unit}".strip())
    axes.spines[:].set_visible(False)
    # Of the figure, not of the axes: those would shrink until a long one fits beside them.
    figure.suptitle(facts.run.title, fontsize=9, x=0.02, ha="left", wrap=True)
    save_figure(figure, path)


def _columns(where: list[tuple[str, str]]) -> list[float]:
    """Where the bars stand, with a gap between stages."""
    found, x = [0.0], 0.0
    for (before, _), (stage, _) in pairwise(where):
        x += 1.0 + (_GAP if stage != before else 0.0)
        found.append(x)
    return found


def _share(facts: Facts, number: int, position: int) -> float | None:
    """Position of the option among the options, 0 to 1; None where the choice is not active."""
    if not facts.archs.active[number, position]:
        return None
    last = len(facts.space.choices[position].options) - 1
    return float(facts.archs.indices[number, position]) / last if last else 0.5


def _bar(x: float, line: int, shares: list[float], colour: str) -> Bar:
    """Return the bar of choices by where their options stand."""
    height = 0.72 * (_LOWEST + (1 - _LOWEST) * shares[0])
    shade = _PALEST + (1 - _PALEST) * shares[min(1, len(shares) - 1)]
    return x - 0.42, line + 0.36 - height, height, colour, shade


def _add_bars(axes: Any, bars: list[Bar]) -> None:
    """Add them all as one collection: one by one they take seconds."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    rectangles = [Rectangle((left, top), 0.84, height) for left, top, height, _, _ in bars]
    fills = [to_rgba(colour, shade) for *_, colour, shade in bars]
    edges = [to_rgba(colour) for *_, colour, _ in bars]
    axes.add_collection(
        PatchCollection(rectangles, facecolors=fills, edgecolors=edges, linewidths=0.7)
    )
