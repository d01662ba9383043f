"""The picture of architectures: a bar for each active block, as high and dark as its options."""

import matplotlib.figure
import numpy as np
import pytest

from hwsearch.report.archs_picture import draw_architectures
from hwsearch.report.findings import by_cost
from hwsearch.stages import slots


@pytest.fixture
def axes(facts, tmp_path, monkeypatch):
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda figure, *args, **named: (save(figure, *args, **named), figures.append(figure)),
    )
    draw_architectures(tmp_path / "a.png", facts["front"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    return figures[0].axes[0]


def test_a_bar_for_every_active_block_and_a_dot_for_the_others(facts, axes):
    known = facts["front"]
    active = known.archs.active[[known.place[key] for key in by_cost(known)]]
    there = [active[:, positions].any(axis=1) for positions in slots(known.space.names).values()]
    (bars,), (dots,) = axes.collections, axes.get_lines()
    assert len(bars.get_paths()) == np.sum(there)
    assert len(dots.get_xdata()) == np.sum(~np.array(there))


def test_later_options_are_higher_and_darker(facts, axes):
    (bars,) = axes.collections
    known = facts["front"]
    heights = np.array([np.ptp(path.vertices[:, 1]) for path in bars.get_paths()])
    shades = bars.get_facecolors()[:, 3]
    number = known.place[by_cost(known)[0]]  # the first row's bars come first
    rows = known.archs.indices[number], known.archs.active[number]
    (first, *_) = slots(known.space.names).values()
    assert rows[1][first[0]]
    share = rows[0][first[0]] / 2
    assert heights[0] == pytest.approx(0.72 * (0.3 + 0.7 * share))
    assert shades[0] == pytest.approx(0.22 + 0.78 * share)


def test_rows_are_in_the_order_of_their_latency(facts, axes):
    told = [float(text.get_text()) for text in axes.get_yticklabels()]
    assert told == sorted(told)
    assert len(told) == len(facts["front"].members)


def test_a_title_of_any_length_leaves_room(facts, tmp_path, monkeypatch):
    run = facts["front"].run
    monkeypatch.setattr(type(run), "title", property(lambda self: "a long title " * 20))
    draw_architectures(tmp_path / "a.png", facts["front"])  # a warning would be an error
    assert (tmp_path / "a.png").stat().st_size > 0
