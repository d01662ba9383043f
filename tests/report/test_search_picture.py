"""The picture of a summary: what stands where, and what is marked as predicted."""

from dataclasses import replace
from itertools import combinations

import matplotlib.figure
import pandas as pd
import pytest

from hwsearch.objectives import Objective
from hwsearch.report.search_picture import draw_search
from hwsearch.run.search_summary import Comparison, PredictionQuality, SearchSummary

TOP1, LATENCY = Objective("top1", "max", unit="%"), Objective("latency", "min", unit="ms")
FRONT = pd.DataFrame(
    {"key": ["a", "b", "c"], "top1": [70.0, 80.0, 84.0], "latency": [1.0, 2.0, 4.5]}
)
SUMMARY = SearchSummary(
    objectives={"top1": "%", "latency": "ms"},
    predicted=(),
    metric="top1",
    evaluated=20,
    failed=1,
    reused=0,
    members=3,
    reference={"top1": 50.0, "latency": 6.0},
    hypervolumes=tuple(float(min(10 * n, 120)) for n in range(20)),
    gain=4.0,
    fits=tuple(
        PredictionQuality(objective=name, evaluated=n, n=min(n - 8, 16), tau=tau, covered=0.9)
        for name, tau in (("top1", 0.8), ("latency", None))
        for n in (12, 16, 20)
    ),
    random=100.0,
    uniform=({"top1": 60.0, "latency": 1.0}, {"top1": 82.0, "latency": 5.0}),
    uniform_hypervolume=90.0,
    uniform_at_knee=65.0,
    knee={"top1": 80.0, "latency": 2.0},
    largest={"top1": 85.0, "latency": 5.5},
    versus=(
        Comparison(
            member="knee", key="b", cost="latency", times=2.75, points=-5.0, low=-6.0, high=-4.0
        ),
    ),
)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw, and return the figure; warnings of matplotlib are errors."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def saving(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        figures.append(figure)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", saving)

    def draw(summary=SUMMARY, front=FRONT, objectives=(TOP1, LATENCY), title="net on device"):
        path = tmp_path / "search.png"
        draw_search(path, summary, front, objectives, title)
        assert path.read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return draw


def legend(axes):
    found = axes.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def test_says_what_is_measured_and_what_is_predicted(drawn):
    progress, comparison, ranking, inside = drawn().axes
    assert legend(progress) == [
        "this search: 120",
        "50 more: +4, predicted",
        "as many drawn by chance, predicted: 100",
        "uniform scaling: 90",
    ]
    assert legend(comparison) == ["front (3)", "uniform scaling (2)", "largest"]
    assert legend(ranking) == ["top1"]  # latencies had no tau
    assert legend(inside) == ["top1", "latency"]


def test_axes_have_units(drawn):
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in drawn().axes]
    assert labels == [
        ("evaluations", "hypervolume (% x ms)"),
        ("latency (ms)", "top1 (%)"),
        ("evaluations", "Kendall's tau (last 16)"),
        ("evaluations", "measured values inside (%, last 16)"),
    ]


def test_a_predicted_objective_is_marked_on_its_axis(drawn):
    figure = drawn(replace(SUMMARY, predicted=("latency",)))
    assert figure.axes[1].get_xlabel() == "latency (ms), predicted"


def test_curves_differ_in_more_than_colour(drawn):
    progress, _, _, inside = drawn().axes
    for lines in (progress.get_lines(), inside.get_lines()[:2]):
        styles = [(line.get_linestyle(), line.get_linewidth()) for line in lines]
        assert len(set(styles)) == len(styles)


def test_texts_stay_clear_of_each_other(drawn):
    figure = drawn(title="a-supernet-of-a-long-name on ort-cpu:threads=16,batch=32")
    renderer = figure.canvas.get_renderer()
    texts = [figure._suptitle]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes._left_title, axes.get_legend()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    width, height = figure.canvas.get_width_height()
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_without_predictions_it_says_so(drawn):
    summary = replace(
        SUMMARY, fits=(), gain=None, random=None, uniform=(), uniform_hypervolume=None,
        uniform_at_knee=None, largest=None, versus=(),
    )  # fmt: skip
    progress, comparison, *fits = drawn(summary).axes
    assert legend(progress) == ["this search: 120"]
    assert legend(comparison) == ["front (3)"]
    for axes in fits:
        (text,) = axes.texts
        assert text.get_text() == "nothing was predicted before it was measured"


@pytest.mark.parametrize("n", [1, 3])
def test_of_other_numbers_of_objectives(drawn, n):
    macs = Objective("macs", "min", unit="MACs")
    objectives = (TOP1, LATENCY, macs)[:n]
    front = FRONT.assign(macs=[1e6, 2e6, 3e6])
    uniform = tuple({**values, "macs": 1e6} for values in SUMMARY.uniform)
    units = {objective.name: objective.unit for objective in objectives}
    summary = replace(SUMMARY, objectives=units, uniform=uniform, uniform_at_knee=None)
    comparison = drawn(summary, front, objectives).axes[1]
    assert len(legend(comparison)) == 3
    assert all(line.get_linestyle() == "None" for line in comparison.get_lines())


def test_a_tau_below_zero_stays_in_sight(drawn):
    fits = tuple(replace(fit, tau=-0.7) for fit in SUMMARY.fits)
    low, _ = drawn(replace(SUMMARY, fits=fits)).axes[2].get_ylim()
    assert low <= -0.7
