"""The members' architectures as a PNG: a row for each, a bar for each block."""

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from hwsearch.report.canvas import new_figure
from hwsearch.report.facts import Facts
from hwsearch.report.findings import by_cost
from hwsearch.report.search_picture import BLUE, GREEN, GREY
from hwsearch.stages import slots

_LOWEST, _PALEST = 0.3, 0.22  # of a first option: it is there
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
    for line, key in enumerate(keys):
        number = facts.place[key]
        for column, ((_, block), positions) in zip(columns, where.items(), strict=True):
            heights = [_share(facts, number, position) for position in positions]
            _draw_bar(axes, column, line, heights, BLUE if block else GREEN)
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
    axes.set_title(facts.run.title, fontsize=9, loc="left", pad=18)
    figure.savefig(path)


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


def _draw_bar(axes: Any, x: float, line: int, shares: list[float | None], colour: str) -> None:
    known = [share for share in shares if share is not None]
    if not known:
        axes.plot([x], [line + 0.32], ".", color=GREY, markersize=3)
        return
    height = 0.72 * (_LOWEST + (1 - _LOWEST) * known[0])
    shade = _PALEST + (1 - _PALEST) * known[min(1, len(known) - 1)]
    bar = {"width": 0.84, "bottom": line + 0.36}
    axes.bar([x], [-height], color=colour, edgecolor="none", alpha=shade, **bar)
    axes.bar([x], [-height], color="none", edgecolor=colour, linewidth=0.7, **bar)
