"""What notebooks show."""

import pandas as pd
import pytest

import hwsearch
from hwsearch.space import Choice, SearchSpace
from tests.report.conftest import HOSTILE


def test_a_run_shows_its_front(runs):
    shown = runs["front"]._repr_html_()
    front = runs["front"].front
    assert runs["front"].title in shown
    for key in front["key"]:
        assert key in shown
    low, high = front["top1_low"].iloc[0], front["top1_high"].iloc[0]
    assert f"({low:.4g} to {high:.4g})" in shown


def test_what_is_predicted_is_marked(runs):
    value = runs["candidates"].members["top1"].iloc[0]
    assert f"~{value:.4g}" in runs["candidates"].members._repr_html_()


def test_an_unfinished_run_says_how_to_go_on(runs):
    assert f"hwsearch resume {runs['unfinished'].folder}" in runs["unfinished"]._repr_html_()


def test_the_front_is_a_data_frame(runs):
    front = runs["front"].front
    assert isinstance(front, pd.DataFrame)
    assert type(front[front["top1"] > 0]) is pd.DataFrame
    assert type(front[["key"]]) is pd.DataFrame
    shown = front._repr_html_()
    assert "depth" in shown
    assert "nan" not in shown


def test_an_architecture_has_a_row_for_each_stage():
    space = SearchSpace(
        [
            Choice("resolution", (160, 192)),
            Choice("stage1.depth", (1, 2)),
            Choice("stage1.block2.kernel", (3, 5), ("stage1.depth", (2,))),
        ]
    )
    shown = space.largest()[0]._repr_html_()
    assert "depth 2 · kernel 5" in shown
    assert shown.count("<tr>") == 3
    assert "kernel" not in space.smallest()[0]._repr_html_()


def test_names_are_escaped(runs):
    for shown in (
        runs["hostile"]._repr_html_(),
        runs["hostile"].front._repr_html_(),
        SearchSpace([Choice(HOSTILE.replace("=", ""), (1,))]).largest()[0]._repr_html_(),
    ):
        assert "<img" not in shown
        assert "<script" not in shown


def test_plot_is_a_figure_of_plotly(runs):
    go = pytest.importorskip("plotly.graph_objects")
    for name in ("front", "bound", "candidates", "unfinished", "single", "hostile"):
        figure = runs[name].plot()
        assert isinstance(figure, go.Figure)
        texts = [trace.text for trace in figure.data if trace.text is not None]
        assert not any("<img" in text for each in texts for text in each)
    front = next(trace for trace in runs["front"].plot().data if trace.name.startswith("front"))
    assert list(front.x) == pytest.approx(sorted(runs["front"].front["latency"]), rel=1e-5)


def test_an_unknown_objective_across_is_refused(runs):
    with pytest.raises(hwsearch.InputError, match="objective across 'macs'"):
        runs["front"].plot("macs")
