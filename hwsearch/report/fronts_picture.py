"""The fronts of several runs as a PNG."""

from collections.abc import Sequence
from pathlib import Path

from hwsearch.report.canvas import axis_label, make_plain, new_figure, save_figure
from hwsearch.report.compare import drawable
from hwsearch.report.facts import Facts
from hwsearch.report.search_picture import BLUE, GREEN, GREY, ORANGE, PURPLE

_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (PURPLE, "^"), (GREY, "x"))


def draw_fronts(path: Path, runs: Sequence[Facts]) -> None:
    """Draw the first objective of each run against its second one; nothing where none is finished.

    Args:
        path: The PNG to write.
        runs: What is drawn of each are its members.
    """
    known = drawable(runs)
    if not known:
        return
    figure = new_figure(7.2, 4.6)
    axes = figure.add_subplot()
    for place, facts in enumerate(known):
        assert facts.members is not None
        assert facts.across is not None
        rows = facts.members.sort_values(facts.across.name)
        colour, marker = _STYLES[place % len(_STYLES)]
        marks = "".join(f", {name} predicted" for name in sorted(facts.predicted))
        axes.plot(
            rows[facts.across.name],
            rows[facts.up.name],
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.2,
            label=f"{facts.run.folder.name}: {facts.run.config.device}{marks}",
        )
    first, across = known[0], known[0].across
    assert across is not None
    axes.set_xlabel(axis_label(across, across.name in first.predicted))
    axes.set_ylabel(axis_label(first.up, first.up.name in first.predicted))
    make_plain(axes)
    axes.legend(frameon=False, loc="best")
    save_figure(figure, path)
